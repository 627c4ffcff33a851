"""opsin answers questions about pictures, sound and text with GGUF models."""

"""Model files out of other model files: quantising, and joining a model with its projector.

This room knows files and number formats, and which tensors deserve more bits. It computes no model.
"""

"""Makes opsin-nano: pictures, questions, training, measuring, export. The package opsin never imports it."""

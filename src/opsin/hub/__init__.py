"""Where models come from: so far a path, or the model that comes with the package."""

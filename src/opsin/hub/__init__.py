"""Where models come from: the one in the package, and those that stores have by name."""

"""HTTP: protocols in, prompts out. Thin: what an answer is, `api` knows; here are routes, shapes, limits and errors."""

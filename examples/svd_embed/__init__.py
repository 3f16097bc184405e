"""An example plugin with weights of its own: character n-grams projected by a trained matrix."""

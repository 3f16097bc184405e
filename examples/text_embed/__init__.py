"""An example plugin: a reproducible vector of 128 numbers for each text."""

"""An example plugin: images of handwritten digits as 64 pixels."""

"""What this plugin is and makes. Granary reads this file without running it: write plain values only."""

feature_extractor_name = "my_plugin"
version = "1.0.0"
description = "Images of like colours in like places get vectors that point the same way"

# Pillow is there for plugins that handle images.
dependencies = ["pillow"]

# 4 x 4 squares, each with its mean red, green and blue.
features = [
    {
        "feature_type": "embedding",
        "feature_name": "my_plugin_v1_embedding",
        "embedding_dim": 48,
        "distance_metric": "cosine",
    }
]

# Every property of type image that objects have by this name becomes a row.
input_mappings = {"image": "image"}

compute_profile = {"resource_type": "cpu", "batch_size": 16, "memory_class": "standard"}

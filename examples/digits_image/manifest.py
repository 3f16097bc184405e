"""What this plugin is and makes. Granary reads this file without running it: write plain values only."""

feature_extractor_name = "digits_image"
version = "1.0.0"
description = "An image of any size as 8 x 8 grey pixels; near are images with ink in the same places"

# The runner has Pillow for plugins that name it.
dependencies = ["pillow"]

features = [
    {
        "feature_type": "embedding",
        "feature_name": "digits_image_v1_pixels",
        "embedding_dim": 64,
        "distance_metric": "cosine",
    }
]

output_schema = {
    "digits_image_v1_pixels": {
        "type": "array",
        "items": {"type": "number"},
        "description": "Brightness of 8 x 8 squares, scaled to length one; missing where the image is all black",
    },
    "width": {"type": "integer", "description": "Of the image, in pixels"},
    "height": {"type": "integer", "description": "Of the image, in pixels"},
}

# The property `image` of an object becomes a row; its file is at `local_path`.
input_mappings = {"image": "image"}

tier = 1
tier_label = "SIMPLE"
compute_profile = {"resource_type": "cpu", "batch_size": 64, "memory_class": "standard"}

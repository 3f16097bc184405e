"""What this plugin is and makes. Granary reads this file without running it: write plain values only."""

feature_extractor_name = "svd_embed"
version = "1.0.0"
description = "Text to 48 numbers by TF-IDF of character n-grams and a projection that was trained on sample articles"

dependencies = ["numpy"]

features = [
    {
        "feature_type": "embedding",
        "feature_name": "svd_embed_v1_embedding",
        "embedding_dim": 48,
        "distance_metric": "cosine",
    }
]

output_schema = {
    "svd_embed_v1_embedding": {
        "type": "array",
        "items": {"type": "number"},
        "description": "Unit vector of 48 numbers; missing where the text is blank",
    },
}

input_mappings = {"text": "text"}
tier = 1
tier_label = "SIMPLE"
compute_profile = {"resource_type": "cpu", "batch_size": 128, "memory_class": "small"}

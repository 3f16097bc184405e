"""What this plugin is and makes. Granary reads this file without running it: write plain values only."""

feature_extractor_name = "my_plugin"
version = "1.0.0"
description = "Long texts are cut into passages; each passage becomes a document with a vector"

dependencies = []

features = [
    {
        "feature_type": "embedding",
        "feature_name": "my_plugin_v1_embedding",
        "embedding_dim": 256,
        "distance_metric": "cosine",
    }
]

# Columns that the steps add become fields of the documents; this describes them.
output_schema = {
    "my_plugin_v1_embedding": {"type": "array", "items": {"type": "number"}},
    "passage": {"type": "string"},
    "passage_number": {"type": "integer", "description": "from 1, within its text"},
}

input_mappings = {"text": "text"}

compute_profile = {"resource_type": "cpu", "batch_size": 32, "memory_class": "small"}

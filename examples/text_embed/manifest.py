"""What this plugin is and makes. Granary reads this file without running it: write plain values only."""

feature_extractor_name = "text_embed"
version = "1.0.0"
description = "A reproducible vector for each text; nearness means nothing"

# numpy and pandas are always there. Any other package goes into the archive, under vendor/.
dependencies = []

# The four keys must have exactly these names. Each feature is a column that pipeline.py fills.
features = [
    {
        "feature_type": "embedding",
        "feature_name": "text_embed_v1_embedding",
        "embedding_dim": 128,
        "distance_metric": "cosine",
    }
]

output_schema = {
    "text_embed_v1_embedding": {
        "type": "array",
        "items": {"type": "number"},
        "description": "Direction of the text in 128 dimensions, of length one",
    },
}

# The property `text` of an object becomes the column `data` of the table that the steps get.
input_mappings = {"text": "text"}

tier = 1
tier_label = "SIMPLE"
compute_profile = {"resource_type": "cpu", "batch_size": 64}

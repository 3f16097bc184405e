# Describes the plugin to Granary, which reads these literals without running the file.

feature_extractor_name = "ngram_embed"
version = "1.0.0"
description = "Text to 128 numbers by hashed character n-grams; compares wording, has no trained weights"

dependencies = ["numpy"]

features = [
    {
        "feature_type": "embedding",
        "feature_name": "ngram_embed_v1_embedding",
        "embedding_dim": 128,
        "distance_metric": "cosine",
    }
]

output_schema = {
    "ngram_embed_v1_embedding": {
        "type": "array",
        "items": {"type": "number"},
        "description": "Unit vector of 128 numbers; missing where the text is blank",
    },
}

input_mappings = {"text": "text"}
tier = 1
tier_label = "SIMPLE"

compute_profile = {"resource_type": "cpu", "batch_size": 256}

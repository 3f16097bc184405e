"""What this plugin is and makes. Granary reads this file without running it: write plain values only."""

feature_extractor_name = "my_plugin"
version = "1.0.0"
description = "Texts that share words get vectors that point the same way"

# numpy and pandas are always there. Any other package goes into this folder, under vendor/.
dependencies = []

# Each feature is a column that pipeline.py fills. The four keys must have exactly these names.
features = [
    {
        "feature_type": "embedding",
        "feature_name": "my_plugin_v1_embedding",
        "embedding_dim": 256,
        "distance_metric": "cosine",
    }
]

# The property `text` of an object becomes the column `data` of the table that the steps get.
input_mappings = {"text": "text"}

# Names of secrets that the plugin may ask for by container.secrets.get("NAME").
# secrets = ["SERVICE_KEY"]

compute_profile = {"resource_type": "cpu", "batch_size": 64, "memory_class": "small"}

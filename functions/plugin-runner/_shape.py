"""The columns of the table that steps get, and bounds that both sides of the pipe know.

Free of imports: the handler, which must start quickly, uses it as well as the worker.
"""

INPUT_COLUMNS = (
    "data",
    "document_id",
    "object_id",
    "blob_id",
    "blob_property",
    "blob_type",
    "collection_id",
    "feature_extractor_id",
    "mime_type",
    "size_bytes",
    "__s3_url",
    "local_path",
)

ROW_COLUMN = "__row"
"""Carries the identity of a row through whatever the steps do to the table."""

OUTPUTS_PER_ROW_MAX = 100

COLUMNS_MAX = 200
"""Columns of the plugin's own that are kept."""

COLUMN_NAME_CHARS_MAX = 200

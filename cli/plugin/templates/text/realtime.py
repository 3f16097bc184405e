"""Answers single queries where the plugin is deployed for realtime. It must agree with the batch steps, or queries do
not find their documents: `granary plugin test --realtime` compares the two."""

from .pipeline import embed


class InferenceService:
    """Made once; asked for every query."""

    def run_inference(self, inputs, parameters):
        """`inputs` holds the text of a query."""
        return {"embedding": embed(inputs["text"])}

"""A deterministic discrete-event simulator of batching: drives the policy of `engines.batcher` and its rivals."""

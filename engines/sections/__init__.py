"""Sections of a manifest that belong to one domain: the numbers that turn its requests into tensors and back."""

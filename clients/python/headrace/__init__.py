"""Python client of a Headrace inference mesh."""

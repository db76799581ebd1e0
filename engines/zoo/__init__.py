"""The model zoo: one recipe a model, from a pinned wheel of a package index to a folder that the repository serves."""

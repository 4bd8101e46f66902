"""The definition document, run in the worker."""

"""Deleting what has outlived its time."""

"""The Python runtime: scripts in CPython sandboxes."""

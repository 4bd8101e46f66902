"""The sandbox's side. These files are run by path in an interpreter of their own, see `boot.py`.

They import the standard library and each other (as top-level modules), never the rest of the project. The worker
imports `control` and `frames` for what both sides must agree on.
"""

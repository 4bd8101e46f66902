"""The sandbox's side: run by path, importing the standard library and this folder only."""

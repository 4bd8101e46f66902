"""Runs of tenant scripts, whatever their language: what a sandbox says becomes commands of the engine."""

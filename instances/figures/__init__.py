"""Figures over many instances: how many ended how, how long they took, over time."""

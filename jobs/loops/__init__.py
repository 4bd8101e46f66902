"""Duties a worker repeats while it lives, each on PostgreSQL alone and safe on any number of workers at once."""

"""Folds over the journal: what happened becomes steps, attempts, log lines, progress. Pure functions, no I/O."""

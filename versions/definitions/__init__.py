"""Workflows as the translated faces know them: made, changed, shown and retired in native forms."""

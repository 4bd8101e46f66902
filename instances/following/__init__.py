"""Following instances live: the journal of one, or of all of a workflow, entry by entry as it is written."""

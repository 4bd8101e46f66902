"""JavaScript at upload: its modules as the engine evaluates them, and what can be seen in them without running them."""

"""JavaScript workflows: V8 in a locked process of its own, one per account and script."""

"""Numbers about all accounts, kept small and current."""

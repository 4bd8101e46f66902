"""Starting instances when a schedule says so."""

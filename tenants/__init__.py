"""Who: accounts, workspaces, users, API tokens, limits, audit; and the ground all packages stand on."""

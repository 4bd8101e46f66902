"""The SQL statements on what is deployed, a module for each table.

Functions take a connection scoped to the account (`Database.scope`) and the account; writes expect a transaction.
`workspace_id` is the workspace a caller is restricted to, None for no restriction.
"""

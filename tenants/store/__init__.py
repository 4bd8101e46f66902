"""Every SQL statement of this package, a module for each group of tables.

Functions that take `engine` need a connection of the engine role, because they do not know the account yet or are for
all accounts; those that take `connection` do with any. The others go through Piccolo and join the scope that is open:
`Database.scope(account)` for whatever a tenant asks for, `Database.across_accounts()` for operators.
"""

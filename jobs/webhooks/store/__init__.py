"""Every SQL statement about endpoints and deliveries, a module for each thing that is done with them.

`endpoints` and `deliveries` are for callers and take a connection scoped to the account; `$1` is the account, `$2` the
workspace the caller is restricted to, if any. The others are the background's: they span accounts, and carry
`(account_id, no)` in every join. Locks are taken in one order: endpoints first, then deliveries.
"""

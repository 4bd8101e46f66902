"""Where tenants' code runs: processes of their own, locked, without credentials, files or network.

    worker --SOCK_SEQPACKET--> zygote (one per language) --fork--> child (one per account and version) <--> worker

`host` starts zygotes and forks children through them, `process` is one child as the worker sees it, `pool` shares
children between the runs of a version, `canary` looks whether the walls stand before any tenant's code runs. What runs
on the other side of the wall is in `child/`: it is executed by path and imports the standard library and its own
folder, nothing else. No module here knows a language.
"""

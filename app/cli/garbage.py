"""When Python looks for garbage in long-running processes.

What these processes make is freed as soon as nobody refers to it; only what refers to itself in a circle waits for the
collector. With Python's own settings the collector looked at everything a busy worker has in memory, modules and code
included, several times a second: 40 % of its CPU time.
"""

from __future__ import annotations

import gc

YOUNG = 30_000
"""Objects that must have been added before the newest are looked at: some ten milliseconds' work. A turn of many runs
makes and frees thousands; with a lower number it is taken for growth.
"""
ROUNDS = (20, 10)
"""Looks at the newest before the middle-aged are looked at, and of those before all are."""


def collect_seldom() -> None:
    """Look less often, from now on."""
    gc.set_threshold(YOUNG, *ROUNDS)


def spare_what_stands() -> None:
    """Never look again at what is there now. For the moment when a process has loaded what it works with."""
    gc.collect()
    gc.freeze()

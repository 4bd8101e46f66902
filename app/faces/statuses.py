"""How the statuses of executions, as the faces whose lists know few of them, divide the facets of the core."""

from __future__ import annotations

from instances.search.query import Facet

PENDING = frozenset({Facet.HELD_BACK})
COMPLETED = frozenset({Facet.COMPLETE})
FAILED = frozenset({Facet.ERRORED, Facet.ERRORED_REVERTED})
CANCELLED = frozenset({Facet.TERMINATED, Facet.TERMINATED_REVERTED})
UNDER_WAY = frozenset(Facet) - PENDING - COMPLETED - FAILED - CANCELLED
"""Begun and not over: running, waiting, paused, or undoing what it did."""
AT_REST = frozenset({Facet.WAITING, Facet.PAUSED})
"""Those of `UNDER_WAY` in which nothing happens until something comes from outside."""

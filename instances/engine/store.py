"""Every statement of the engine: the only SQL of the platform that spans accounts.

The work is done by SQL functions (`sql/*.sql`), one round trip each; this module names them and shapes their
arguments and answers. Every join in them carries `(account_id, key)`; rows are locked in that order or skipped.
"""

from __future__ import annotations

from pathlib import Path

_SQL = Path(__file__).with_name("sql")


def function_scripts() -> list[str]:
    """The engine's SQL functions, in the order they must be installed."""
    return [path.read_text() for path in sorted(_SQL.glob("*.sql"))]

"""`docs/lifecycle.md` is what the tables of the engine say; the tables themselves are whole."""

from __future__ import annotations

from instances import lifecycle_page
from instances.lifecycle import COMMANDS, MOVES, NEVER_STARTED, Command, Control, Move, Status
from tests.support.docs import page


def test_the_page_is_generated_from_the_tables() -> None:
    assert page("lifecycle.md") == lifecycle_page.page(), "python -m instances.lifecycle_page > docs/lifecycle.md"


def test_every_command_says_what_it_does_in_every_status() -> None:
    assert set(COMMANDS) == set(Command)
    assert all(set(effects) == set(Status) for effects in COMMANDS.values())
    assert set(MOVES) == set(Move)


def test_what_is_not_done_changes_and_writes_nothing() -> None:
    for effects in COMMANDS.values():
        for status, done in effects.items():
            if done.outcome is not Control.DONE:
                assert (done.status, done.entry, done.followed_by) == (status, None, None)


def test_the_engine_leaves_finished_instances_alone() -> None:
    assert not any(status.finished for effects in (*MOVES.values(), *NEVER_STARTED.values()) for status in effects)

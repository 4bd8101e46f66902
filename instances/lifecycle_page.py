"""`docs/lifecycle.md`, generated from :mod:`instances.lifecycle`.

`python -m instances.lifecycle_page > docs/lifecycle.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from instances.errors import CannotPause, CannotRestart, CannotResume, CannotRetryStep, CannotTerminate
from instances.lifecycle import COMMANDS, MOVES, NEVER_STARTED, Command, Control, Effect, Kind, Move, Status

_MEANING = {
    Status.QUEUED: "Created, woken or resumed; waits for a slot.",
    Status.RUNNING: "A worker holds it. It takes a slot of its workflow and its account.",
    Status.WAITING: "Waits for a timer, an event, a child, an answer from outside or the next attempt of a step. "
    "Takes no slot and no memory.",
    Status.PAUSED: "Stopped by `pause`. Its time stands still: sleeps, retries and timeouts are put off by the pause, "
    "moments (`sleepUntil`) are not. Events are kept.",
    Status.WAITING_FOR_PAUSE: "Asked to pause; steps in flight are finishing, none is started.",
    Status.ROLLING_BACK: "Compensations run, waiting between their attempts included. They go ahead of all other work "
    "and beyond the limits of slots.",
    Status.COMPLETE: "Its code returned.",
    Status.ERRORED: "Its code failed, or the engine had to give it up.",
    Status.TERMINATED: "Ended by command.",
}
_COMMAND_MEANING = {
    Command.PAUSE: "Stops at the next step boundary, at once when no worker holds the instance.",
    Command.RESUME: "Goes on where it stopped, or takes a pause back that has not settled.",
    Command.TERMINATE: "Ends now, with its unfinished children; no compensation is run. While rolling back: the "
    "compensation in flight finishes, no other is started, and the rollback has failed.",
    Command.TERMINATE_WITH_ROLLBACK: "Runs the compensations of what has been done, then ends as terminated. "
    "What never started has nothing to compensate and ends at once.",
    Command.RESTART: "Runs again under the same id: from the beginning on the newest version, or from a step on the "
    "version it had. Unread events are gone; what was recorded before stays in the journal.",
    Command.DELETE: "Ends it like terminate, with its children and without rollback, and removes all it stored. "
    "Its id is free again.",
    Command.REOPEN: "Goes on with an errored instance where a step failed it, if nothing was compensated: what "
    "followed from the failure is void, and the step is tried again. In an unfinished instance, a step that waits for "
    "its next attempt, or that failed and was passed over, is tried again without a change of status.",
}
_MOVE_MEANING = {
    Move.CLAIM: "A worker takes it. The first claim of a run is followed by `STARTED`.",
    Move.PARK: "Nothing is left but waiting: it leaves memory and gives its slot back. Does not happen when something "
    "came in that the run has not looked at.",
    Move.WAKE: "Its timer is due, an event it awaits came, or its child ended.",
    Move.SETTLE_PAUSE: "The last step in flight has finished.",
    Move.ROLL_BACK: "It failed and has something to compensate.",
    Move.RELEASE: "Its worker leaves and gives it back.",
    Move.TAKE_OVER: "Its worker died; another one puts it back.",
    Move.COMPLETE: "Its code returned.",
    Move.FAIL: "Its code failed, and its own rollback, if any, is over.",
    Move.STOP: "The rollback a terminate asked for, or cut short, is over.",
}
_REFUSED_BY = {
    Command.PAUSE: CannotPause,
    Command.RESUME: CannotResume,
    Command.TERMINATE: CannotTerminate,
    Command.TERMINATE_WITH_ROLLBACK: CannotTerminate,
    Command.RESTART: CannotRestart,
    Command.REOPEN: CannotRetryStep,
}
_CHANGING = (Command.PAUSE, Command.RESUME)
"""Commands drawn among the moves; the others have a diagram of their own."""

_HEAD = """\
# The life of an instance

<!-- Generated from instances/lifecycle.py: python -m instances.lifecycle_page > docs/lifecycle.md -->

An instance has one of nine statuses. It changes in two ways: the engine moves it on, and commands steer it. Both change
it under the lock of its row, in one transaction with the journal entry that tells of it: what a caller was answered is
committed, and of a command and a worker that come together one is first and the other sees it.
"""
_ENGINE = """\
## What the engine does

`pause` and `resume` are drawn too, because they wait for the engine or it waits for them.
"""
_FACTS = """\
Statuses do not tell everything: an instance in `rollingBack` is claimed, parks and wakes as well, and keeps its status.
"""
_COMMANDS = """\
## What commands do

How runs are ended and begun again:
"""
_TABLE = """\
Every command in every status. “–” changes nothing and is a success. “refused” changes nothing and is an error: 409 with
the code below on the REST face. Commands to an instance there is not are 404.
"""
_RULES = """\
- **Finished is final**, but for `restart`, `delete` and retries of steps. An event to a finished instance is refused
  (400, 10454).
- **A restart is a new run** of the same instance. Its number grows; journal entries are numbered on, never anew.
- **A command wins against its worker.** What ends or replaces a run also takes it from the worker that holds it:
  nothing that worker writes afterwards is accepted.
- **A restart from a step names the history it looked at.** If the instance was restarted meanwhile, it is refused.
- **No child is left behind.** Unfinished children end with their parent, all the way down, in the same transaction,
  however it ends: by itself, by `terminate`, `delete` or `restart`. With `terminate with rollback` they roll back, too,
  each at its own pace. A child the parent gives up (its node timed out or was cancelled) is terminated, or rolls back
  when the parent is rolling back. What rolls back already does so to its end, save by `delete`. A child begun with
  `wait: false` is on its own. A parent that lives hears of its child's end, whatever ended it.
"""


def page() -> str:
    """The page as text."""
    return "\n".join(
        [
            _HEAD,
            _table(("status", "finished", "meaning"), _statuses()),
            _ENGINE,
            _diagram(_engine_edges()),
            _FACTS,
            _table(("move", "from", "to", "journal", "when"), _moves()),
            _COMMANDS,
            _diagram(_command_edges()),
            _TABLE,
            _table(("status", *(f"`{command}`" for command in Command)), _effects()),
            _table(("command", "what it does", "journal", "code when refused"), _commands()),
            _RULES.rstrip("\n"),
            "",
        ]
    )


def _statuses() -> Iterable[tuple[str, ...]]:
    for status in Status:
        yield f"`{status.wire}`", "yes" if status.finished else "no", _MEANING[status]


def _moves() -> Iterable[tuple[str, ...]]:
    for move, effects in MOVES.items():
        for to in dict.fromkeys(effects.values()):
            before = ", ".join(f"`{status.wire}`" for status in Status if effects.get(status) == to)
            first = to is next(iter(effects.values()))
            yield (
                str(move) if first else "",
                before,
                _wire(to.status),
                _entries([to]),
                _MOVE_MEANING[move] if first else "",
            )


def _effects() -> Iterable[tuple[str, ...]]:
    for status in Status:
        yield f"`{status.wire}`", *(_cell(command, status) for command in Command)


def _cell(command: Command, status: Status) -> str:
    done = COMMANDS[command][status]
    if done.outcome is Control.NOTHING:
        return "–"
    if done.outcome is not Control.DONE:
        return "refused"
    unstarted = NEVER_STARTED.get(command, {}).get(status)
    alternative = f"; never started: {_wire(unstarted.status)}" if unstarted else ""
    return ("stops the rollback" if done.followed_by is Kind.ROLLBACK_STOPPED else _wire(done.status)) + alternative


def _commands() -> Iterable[tuple[str, ...]]:
    for command, meaning in _COMMAND_MEANING.items():
        effects = [*COMMANDS[command].values(), *NEVER_STARTED.get(command, {}).values()]
        error = _REFUSED_BY.get(command)
        yield str(command), meaning, _entries(effects), f"{error.code} `{error.key}`" if error else ""


def _entries(effects: Iterable[Effect]) -> str:
    kinds: list[Kind] = [kind for each in effects for kind in (each.entry, each.followed_by) if kind is not None]
    return ", ".join(f"`{kind.name}`" for kind in dict.fromkeys(kinds)) or "–"


def _wire(status: Status | None) -> str:
    return "gone" if status is None else f"`{status.wire}`"


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [_line(head)]
    lines.append("|" + "---|" * lines[0].count(" | ") + "---|")
    return "\n".join([*lines, *map(_line, rows), ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


Edges = dict[tuple[Status, Status], list[str]]


def _engine_edges() -> Edges:
    edges: Edges = {}
    _add(edges, {str(move): effects for move, effects in MOVES.items()})
    _add(edges, {str(command): COMMANDS[command] for command in _CHANGING})
    return edges


def _command_edges() -> Edges:
    edges: Edges = {}
    _add(edges, {str(command): COMMANDS[command] for command in Command if command not in _CHANGING})
    _add(edges, {f"{command} (never started)": effects for command, effects in NEVER_STARTED.items()})
    return edges


def _add(edges: Edges, causes: Mapping[str, Mapping[Status, Effect]]) -> None:
    for cause, effects in causes.items():
        for before, done in effects.items():
            if done.status is not None and done.status is not before:
                edges.setdefault((before, done.status), []).append(cause)


def _diagram(edges: Edges) -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    if any(Status.RUNNING is after for _, after in edges):
        lines.append(f"    [*] --> {Status.QUEUED.wire}: create")
        lines += [f"    {status.wire} --> [*]" for status in Status if status.finished]
    lines += [
        f"    {before.wire} --> {after.wire}: {', '.join(causes)}" for (before, after), causes in sorted(edges.items())
    ]
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    sys.stdout.write(page())

"""The `fields` parameter: which parts of an execution are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

Path = tuple[str, ...]

DEFAULTS = (
    "id",
    "workflow_id",
    "transaction_id",
    "execution",
    "context",
    "state",
    "created_at",
    "updated_at",
    "deleted_at",
)


@dataclass(frozen=True)
class Fields:
    """`wanted` less what lies under `unwanted`; both are paths from the top."""

    wanted: frozenset[Path]
    unwanted: frozenset[Path] = frozenset()

    def has(self, name: str) -> bool:
        """Whether anything of the field `name` is wanted."""
        return name in self._named and (name,) not in self.unwanted

    def has_all(self, name: str) -> bool:
        """Whether all of it is."""
        return (name,) in self.wanted and name not in self._cut

    @cached_property
    def _named(self) -> frozenset[str]:
        """Fields of which something is wanted, unless it is unwanted."""
        return frozenset(path[0] for path in self.wanted)

    @cached_property
    def _cut(self) -> frozenset[str]:
        """Fields of which something is unwanted."""
        return frozenset(path[0] for path in self.unwanted)

    def pick(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """What is wanted of an execution, in its order. Names it does not have are passed over."""
        told: dict[str, Any] = {}
        for name, value in whole.items():
            if self.has_all(name):
                told[name] = value
            elif self.has(name) and (picked := _pick(value, (name,), self)) is not _NOTHING:
                told[name] = picked
        return told


def parse_fields(text: str | None) -> Fields:
    """What a request asks for. With any plain name in it the list stands for itself, without, for a change of the
    defaults: `+x` (whose plus arrives as a space) adds, `-x` takes away, `*x` and `x.*` are all of `x`.
    """
    tokens = [token for token in (text or "").split(",") if token.strip(" +-*.")]
    if any(not _modified(token) for token in tokens):
        return Fields(frozenset({("id",), *(_path(token) for token in tokens)}))
    wanted: set[Path] = {(name,) for name in DEFAULTS}
    unwanted: set[Path] = set()
    for token in tokens:
        path = _path(token)
        if token.startswith("-"):
            wanted = {one for one in wanted if one[: len(path)] != path}
            unwanted.add(path)
        else:
            unwanted = {one for one in unwanted if one[: len(path)] != path}
            wanted.add(path)
    unwanted.discard(("id",))
    return Fields(frozenset(wanted | {("id",)}), frozenset(unwanted))


def _modified(token: str) -> bool:
    return token[0] in "+ -*" or token.endswith(".*")


def _path(token: str) -> Path:
    return tuple(token.lstrip("+ -*").removesuffix(".*").strip().split("."))


_NOTHING: Any = object()


def _pick(value: Any, at: Path, fields: Fields) -> Any:
    depth = len(at)
    if any(at[: len(path)] == path for path in fields.unwanted):
        return _NOTHING
    whole = any(at[: len(path)] == path for path in fields.wanted)
    below = any(path[:depth] == at for path in fields.unwanted)
    if whole and not below:
        return value
    if not whole and not any(path[:depth] == at for path in fields.wanted):
        return _NOTHING
    if isinstance(value, msgspec.Raw):
        value = _opened(value)
    if isinstance(value, Mapping):
        found = {name: _pick(inner, (*at, name), fields) for name, inner in value.items()}
        return {name: inner for name, inner in found.items() if inner is not _NOTHING}
    if isinstance(value, list):
        items = [_pick(inner, at, fields) for inner in value]
        return [item for item in items if item is not _NOTHING]
    return value if whole else _NOTHING


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _opened(raw: msgspec.Raw) -> Any:
    """A payload one level open; one that is no object, or cannot be opened, as it is."""
    if not bytes(raw).lstrip().startswith(b"{"):
        return raw
    try:
        return _OBJECT.decode(raw)
    except msgspec.DecodeError:
        return raw

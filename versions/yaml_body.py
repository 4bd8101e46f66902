"""YAML as another spelling of JSON: what a JSON document cannot say is refused, and nothing surprising is read into it.

Dates stay text, `yes` stays text, keys are texts and unique. Anchors and aliases are refused: ten lines of them stand
for gigabytes. Works on the parser's events, without recursion.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from app.errors import InvalidRequest
from tenants.limits import JSON_DEPTH

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_TEXT_TAG = "tag:yaml.org,2002:str"
_MISSING = object()


class _Open:
    """A collection that is being read."""

    __slots__ = ("key", "value")

    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        self.value = value
        self.key: Any = _MISSING


def decode_yaml(body: bytes) -> Any:
    """The JSON value a YAML text spells. Raises :class:`InvalidRequest` saying what is wrong, and where."""
    try:
        return _compose(body.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8 text") from None
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InvalidRequest(f"the body is not valid YAML: {what}{_place(where)}") from None


def _compose(text: str) -> Any:
    root = _MISSING
    stack: list[_Open] = []
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent) and root is not _MISSING:
            raise _refusal("must hold one document only", event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal("must not use anchors and aliases", event)
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            stack.pop()
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        value = _value(event)
        if not stack:
            root = value
        else:
            _put(stack[-1], value, event)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(stack) >= JSON_DEPTH:
                raise _refusal(f"must not be nested deeper than {JSON_DEPTH}", event)
            stack.append(_Open(value))
    return None if root is _MISSING else root


def _put(parent: _Open, value: Any, event: Any) -> None:
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.key is _MISSING:
        if not isinstance(event, yaml.ScalarEvent) or value is None:
            raise _refusal("must have texts as keys", event)
        key = event.value
        if key in parent.value:
            raise _refusal(f"has the key {key[:64]!r} twice", event)
        if key == "<<" and event.implicit[0]:
            raise _refusal("must not use merge keys", event)
        parent.key = key
    else:
        parent.value[parent.key] = value
        parent.key = _MISSING


def _value(event: Any) -> Any:
    tag = event.tag
    if tag and tag != "!" and tag not in _TAGS:
        raise _refusal(f"must not use the tag {tag[:64]}", event)
    if isinstance(event, yaml.MappingStartEvent):
        return {}
    if isinstance(event, yaml.SequenceStartEvent):
        return []
    text = event.value
    if not event.implicit[0] and tag in (None, "!", _TEXT_TAG):
        return text  # quoted, a block, or said to be text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _refusal(what: str, event: Any) -> InvalidRequest:
    return InvalidRequest(f"the YAML body {what}{_place(event.start_mark)}")


def _place(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"

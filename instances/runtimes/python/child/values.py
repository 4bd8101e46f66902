"""Values and errors on their way out and in. Most are plain JSON; what JSON lacks is tagged: {"$t": tag, "v": …}.

Tags are those of JavaScript's values, so that workflows in both languages can read each other: datetime is a Date,
bytes are a Uint8Array, a dict with keys that are no texts is a Map, an int beyond 2**53 a BigInt.
"""

from __future__ import annotations

import base64
import builtins
import datetime
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MAX_DEPTH = 500
SAFE = 2**53 - 1
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)
_HERE = str(Path(__file__).parent)
_LIBRARY = str(Path(traceback.__file__).parent)


class Uncloneable(TypeError):
    """A value that cannot be stored."""


def encode(value: Any) -> dict[str, Any]:
    """`{v}` plain, `{x}` tagged, or `{}` for None: to be merged into a message. Raises :class:`Uncloneable`."""
    if value is None:
        return {}
    return {"v": value} if _is_plain(value, 0) else {"x": _deeply(lambda: _tag(value, []))}


def decode(message: dict[str, Any]) -> Any:
    return _deeply(lambda: untag(message["x"])) if "x" in message else message.get("v")


def _deeply(work: Callable[[], Any]) -> Any:
    """Do what may call itself for every level of a value."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 4 * MAX_DEPTH)
    try:
        return work()
    finally:
        sys.setrecursionlimit(limit)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether JSON says all there is to say about a value."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -SAFE <= value <= SAFE
    if kind is float:
        return value - value == 0 and (value != 0 or str(value)[0] != "-")
    if depth > 60:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or key == "$t" or not _is_plain(item, depth + 1):
                return False
        return True
    return kind is list and all(_is_plain(item, depth + 1) for item in value)


def _tag(value: Any, path: list[int]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int(value)
        return number if -SAFE <= number <= SAFE else {"$t": "i", "v": str(number)}
    if isinstance(value, float):
        return _number(float(value))
    if id(value) in path:
        raise Uncloneable("a value that contains itself cannot be stored")
    if len(path) > MAX_DEPTH:
        raise Uncloneable("a value nested this deep cannot be stored")
    path.append(id(value))
    tagged = _tag_object(value, path)
    path.pop()
    return tagged


def _number(value: float) -> Any:
    if value - value == 0:
        return value if value != 0 or str(value)[0] != "-" else {"$t": "n", "v": "-0"}
    return {"$t": "n", "v": "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"}


def _tag_object(value: Any, path: list[int]) -> Any:
    if isinstance(value, list | tuple):
        return [_tag(item, path) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            fields = {str(key): _tag(item, path) for key, item in value.items()}
            return {"$t": "o", "v": fields} if "$t" in fields else fields
        return {"$t": "m", "v": [[_tag(key, path), _tag(item, path)] for key, item in value.items()]}
    if isinstance(value, set | frozenset):
        return {"$t": "s", "v": [_tag(item, path) for item in value]}
    if isinstance(value, datetime.datetime):
        return {"$t": "d", "v": millis_of(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$t": "b", "v": base64.b64encode(value).decode(), "k": "Uint8Array"}
    if isinstance(value, BaseException):
        name, message = _name_of(value), text_of(value)
        return {"$t": "e", "v": {"name": name, "message": message}}
    raise Uncloneable(f"a value of type {type(value).__name__} cannot be stored")


def millis_of(moment: datetime.datetime) -> int:
    """Milliseconds since 1970; a moment without a zone is UTC, as everything here is."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH) // _MILLISECOND


def moment_of(millis: float) -> datetime.datetime:
    return _EPOCH + millis * _MILLISECOND


def untag(value: Any) -> Any:
    """What was tagged, again as it was. Of what only JavaScript has, the nearest."""
    if isinstance(value, list):
        return [untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get("$t")
    if tag is None:
        return {key: untag(item) for key, item in value.items()}
    return _UNTAG[tag](value.get("v"))


def _date(millis: Any) -> Any:
    try:
        return None if millis is None else moment_of(millis)
    except OverflowError:
        return None


_UNTAG = {
    "u": lambda v: None,
    "n": lambda v: float(v.replace("Infinity", "inf")),
    "i": int,
    "d": _date,
    "m": lambda v: {_key(key): untag(item) for key, item in v},
    "s": lambda v: _set(untag(v)),
    "b": base64.b64decode,
    "x": lambda v: v,
    "e": lambda v: error_from(v),
    "o": lambda v: {key: untag(item) for key, item in v.items()},
    "r": base64.b64decode,
}


def _key(value: Any) -> Any:
    key = untag(value)
    try:
        hash(key)
    except TypeError:
        return str(key)
    return key


def _set(items: list[Any]) -> Any:
    try:
        return set(items)
    except TypeError:
        return items


# --- errors -----------------------------------------------------------------------------------------------------------

PLATFORM = frozenset(
    (
        "NonRetryableError", "WorkflowFatalError", "WorkflowTimeoutError", "WorkflowInternalError",
        "NonRetryableDelayError", "WorkflowError", "AggregateError", "Terminated", "Error",
    )
)  # fmt: skip
_JAVASCRIPT = frozenset(("RangeError", "ReferenceError", "EvalError", "URIError"))
_BUILT_IN = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and name == kind.__name__
}
_PLAIN = {name: kind for name, kind in _BUILT_IN.items() if not issubclass(kind, UnicodeError | ExceptionGroup)}
"""Those that can be made of a message."""


class NonRetryableError(Exception):
    """Ends a step, or a run, without another attempt."""


def text_of(value: Any) -> str:
    try:
        return str(value)
    except BaseException:
        return "(a value that cannot be made a text)"


def clean(text: str, limit: int) -> str:
    """`text` as UTF-8 can have it, cut after `limit` characters."""
    return str(text)[:limit].encode("utf-8", "replace").decode()


def _name_of(error: BaseException) -> str:
    name = getattr(error, "name", None) if type(error) is Exception else None
    return name if isinstance(name, str) and name else type(error).__name__


def told(error: BaseException, *, leaving: bool) -> dict[str, Any]:
    """An error as the worker is told. `leaving`: it leaves run(), where only known names pass."""
    name, message = "Error", "(an error that cannot be read)"
    permanent, stack = False, ""
    try:
        name, message = _name_of(error), text_of(error)
        if isinstance(error, KeyError) and len(error.args) == 1:
            message = repr(error.args[0])
        permanent = isinstance(error, NonRetryableError) or message.startswith("NonRetryableError")
        if isinstance(error, NonRetryableError):
            name = "NonRetryableError"
        stack = stack_of(error)
    except BaseException:
        stack = ""
    if name == "Exception":
        name = "Error"
    if leaving and name not in _BUILT_IN and name not in PLATFORM and name not in _JAVASCRIPT:
        name, message = "Error", f"{name}: {message}" if message else name
    found: dict[str, Any] = {"name": clean(name, 256), "message": clean(message, 10_000)}
    if stack:
        found["stack"] = clean(stack, 8_000)
    if permanent:
        found["permanent"] = True
    return found


def stack_of(error: BaseException) -> str:
    """The traceback through the script's own code and the library, without this folder's."""
    shown = traceback.TracebackException.from_exception(error, limit=-50, compact=True)
    _strip(shown, set())
    return "".join(shown.format(chain=True)).rstrip()


def _strip(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if not frame.filename.startswith(_HERE)]
    )
    for frame in shown.stack:  # where the interpreter is installed is nobody's business
        if frame.filename.startswith(_LIBRARY):
            frame.filename = "python" + frame.filename[len(_LIBRARY) :]
    for other in (shown.__cause__, shown.__context__, *_group(shown)):
        if other is not None:
            _strip(other, seen)


def _group(shown: traceback.TracebackException) -> Iterable[traceback.TracebackException]:
    return getattr(shown, "exceptions", None) or ()


def error_from(error: dict[str, Any]) -> Exception:
    """An error the worker told of, as code catches it: built-in classes as such, anything else an Exception that has
    the name as `name`."""
    name, message = error.get("name") or "Error", error.get("message") or ""
    if name == "NonRetryableError":
        return NonRetryableError(message)
    kind = _PLAIN.get(name)
    if kind is not None:
        try:
            return kind(message)
        except Exception:
            kind = None
    found = Exception(message)
    if name not in ("Error", "Exception"):
        found.name = name  # type: ignore[attr-defined]
    return found


def fault(name: str, message: str) -> Exception:
    """An error of the platform's own."""
    return error_from({"name": name, "message": message})

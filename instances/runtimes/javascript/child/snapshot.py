"""Contexts that begin with the prelude in them: V8's startup snapshot, with the prelude evaluated and compiled.

Evaluating the prelude takes as long as everything else a sandbox needs to start. V8 can take it from a snapshot
instead, and mini-racer has no function for that; but its library lets all of V8's own be called. What is called here
runs in processes that are thrown away: `make` leaves nothing behind but the snapshot, and `try_out` says whether it
serves. Where anything of this does not work, sandboxes do without.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SECONDS = 20
"""How long a process that is thrown away may take."""
FLAGS = ("--no-lazy", "--allow-natives-syntax")
"""Compile everything, and know V8's own functions: for the making only. Sandboxes do not know them by name."""
NO_CHECKPOINT = b"const checkpoint = undefined;"
CHECKPOINT = b"const checkpoint = () => { %PerformMicrotaskCheckpoint(); };"

_POINTER = ctypes.c_void_p
_KEEP_CODE = 1


class _Blob(ctypes.Structure):
    """`v8::StartupData`."""

    _fields_ = (("data", _POINTER), ("size", ctypes.c_int))


class _Callback(ctypes.Structure):
    """A function of the embedder's and what it is given, as `v8::SerializeInternalFieldsCallback` and the like."""

    _fields_ = (("function", _POINTER), ("data", _POINTER))


_NONE = _Callback(None, None)


def make(library: ctypes.CDLL, script: bytes) -> bytes:
    """The snapshot of a context in which `script` has run. V8 must have been initialised, with `FLAGS` besides those it
    is to be used with. To be called `apart`: what it leaves of V8 is of no more use. Raises RuntimeError.
    """
    creator = _new_creator(library)
    isolate = _call(library, "_ZN2v815SnapshotCreator10GetIsolateEv", _POINTER, creator)
    scope = _HandleScope(library, isolate)
    context = _new_context(library, isolate)
    _call(library, "_ZN2v87Context5EnterEv", None, context)
    text = _call(
        library, "_ZN2v86String11NewFromUtf8EPNS_7IsolateEPKcNS_13NewStringTypeEi", _POINTER,
        isolate, ctypes.c_char_p(script), ctypes.c_int(0), ctypes.c_int(len(script)),
    )  # fmt: skip
    compiled = _call(
        library, "_ZN2v86Script7CompileENS_5LocalINS_7ContextEEENS1_INS_6StringEEEPNS_12ScriptOriginE", _POINTER,
        context, text, None,
    )  # fmt: skip
    if not compiled or not _call(library, "_ZN2v86Script3RunENS_5LocalINS_7ContextEEE", _POINTER, compiled, context):
        raise RuntimeError("the script does not run")
    _call(library, "_ZN2v87Context4ExitEv", None, context)
    name = (
        "_ZN2v815SnapshotCreator17SetDefaultContextENS_5LocalINS_7ContextEEENS_31SerializeInternalFieldsCallbackENS_28"
        "SerializeContextDataCallbackENS_27SerializeAPIWrapperCallbackE"
    )
    _call(library, name, None, creator, context, _NONE, _NONE, _NONE)
    scope.close()
    blob = _call(
        library, "_ZN2v815SnapshotCreator10CreateBlobENS0_20FunctionCodeHandlingE", _Blob,
        creator, ctypes.c_int(_KEEP_CODE),
    )  # fmt: skip
    if not blob.data:
        raise RuntimeError("no snapshot came of it")
    return ctypes.string_at(blob.data, blob.size)


def share_read_only_heap(library: ctypes.CDLL) -> None:
    """Keep an isolate that is never used, and with it the part of the heap that isolates share and nobody writes to:
    2 MB that every child would have to make anew. It has no thread, unlike those of mini-racer, and outlives a fork.
    """
    _new_creator(library)


def _new_creator(library: ctypes.CDLL) -> Any:
    """A `v8::SnapshotCreator`, with an isolate of its own."""
    creator = (_POINTER * 1)()
    _call(library, "_ZN2v815SnapshotCreatorC1EPKlPKNS_11StartupDataE", None, creator, None, None)
    return creator


class _HandleScope:
    """`v8::HandleScope`, whose functions are all inline: nothing of it is in the library but the three it moves."""

    def __init__(self, library: ctypes.CDLL, isolate: int) -> None:
        def at(what: str, kind: Any) -> Any:
            name = f"_ZN2v88internal11HandleScope{len(what)}{what}EPNS0_7IsolateE"
            return ctypes.cast(_call(library, name, _POINTER, isolate), ctypes.POINTER(kind))

        self._library, self._isolate = library, isolate
        self._next, self._limit = at("current_next_address", _POINTER), at("current_limit_address", _POINTER)
        self._level = at("current_level_address", ctypes.c_int)
        self._before = self._next[0], self._limit[0]
        self._level[0] += 1

    def close(self) -> None:
        self._next[0], self._limit[0] = self._before
        self._level[0] -= 1
        name = "_ZN2v88internal11HandleScope16DeleteExtensionsEPNS0_7IsolateE"
        _call(self._library, name, None, self._isolate)


def _new_context(library: ctypes.CDLL, isolate: int) -> int:
    name = (
        "_ZN2v87Context3NewEPNS_7IsolateEPNS_22ExtensionConfigurationENS_10MaybeLocalINS_14ObjectTemplateEEENS5_INS_5Value"
        "EEENS_33DeserializeInternalFieldsCallbackEPNS_14MicrotaskQueueENS_30DeserializeContextDataCallbackENS_29"
        "DeserializeAPIWrapperCallbackE"
    )
    context = _call(library, name, _POINTER, isolate, None, None, None, _NONE, None, _NONE, _NONE)
    if not context:
        raise RuntimeError("there is no context")
    return context


def _call(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """Call a function by the name the compiler gave it, which has its parameters' types in it: of another V8, whose
    functions take something else, it is not found. Raises AttributeError then."""
    function = library[name]
    function.restype = result
    return function(*(_POINTER(one) if one is None or isinstance(one, int) else one for one in arguments))


def install(library: ctypes.CDLL, snapshot: bytes) -> Any:
    """Make it V8's own, before V8 is initialised. What is returned has to be kept as long as V8 is used.

    V8 takes its own from a constant, the address of which it tells. Raises AttributeError, OSError.
    """
    kept = ctypes.create_string_buffer(snapshot, len(snapshot))
    address = _call(library, "_ZN2v88internal8Snapshot19DefaultSnapshotBlobEv", _POINTER)
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    pages = address + ctypes.sizeof(_Blob) - first
    _protect(first, pages, mmap.PROT_READ | mmap.PROT_WRITE)
    blob = _Blob.from_address(address)
    blob.data, blob.size = ctypes.addressof(kept), len(snapshot)
    _protect(first, pages, mmap.PROT_READ)
    return kept


def _protect(address: int, length: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(_POINTER(address), ctypes.c_size_t(length), protection):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def apart(work: Callable[[], bytes]) -> bytes | None:
    """What `work` gives in a process of its own, which is thrown away; None when it raises, crashes or hangs."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work_apart(work, writable)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(pid, 0)
    return found if status == 0 else None


def _work_apart(work: Callable[[], bytes], writable: int) -> None:
    code = 1
    with suppress(BaseException):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(work())
        code = 0
    os._exit(code)

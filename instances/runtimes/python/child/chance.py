"""Time and chance. Outside steps both are the run's own and come out the same in every replay: the clock shows when the
last outcome was handed over, chance is seeded by the instance. Inside a step they are real.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from books import GLOBAL_SCOPE, Chance, current

_real_time = time.time
_FAR = 24 * 365 * 3600
"""Where monotonic clocks begin: code may look some hours back."""


def now_millis() -> float:
    place = current.get()
    life = place.life
    if life is None:
        return 0.0
    return _real_time() * 1000 + life.ahead if place.step else life.clock


def notice(life: Any, now: float) -> None:
    """The worker said what time it is."""
    life.ahead = now - _real_time() * 1000


def _now() -> float:
    return now_millis() / 1000


def loop_time() -> float:
    life = current.get().life
    return 0.0 if life is None else _FAR + (now_millis() - life.started) / 1000


# --- chance -----------------------------------------------------------------------------------------------------------


def _chance() -> Chance:
    place = current.get()
    if place.life is None:
        raise RuntimeError(GLOBAL_SCOPE)
    return place.life.attempts.get(place.step, place.life.chance) if place.step else place.life.chance


def random_bytes(size: int) -> bytes:
    """From a stream keyed by the place's entropy."""
    if size < 0:
        raise ValueError("negative argument not allowed")
    chance = _chance()
    rest = chance.rest
    while len(rest) < size:
        wanted = max(64, min(size - len(rest), 1 << 20))
        chance.blocks += 1
        rest += hashlib.shake_256(chance.entropy + chance.blocks.to_bytes(8, "little")).digest(wanted)
    chance.rest = rest[size:]
    return rest[:size]


def _generator() -> random.Random:
    chance = _chance()
    if chance.generator is None:
        seed = int.from_bytes(hashlib.sha256(b"random" + chance.entropy).digest())
        chance.generator = random.Random(seed)  # noqa: S311
    return chance.generator


def _uuid1(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
    ticks = int(now_millis() * 10_000) + 0x01B21DD213814000
    if clock_seq is None:
        clock_seq = int.from_bytes(random_bytes(2)) & 0x3FFF
    if node is None:
        node = int.from_bytes(random_bytes(6)) | 1 << 40
    fields = (ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0xFFF, clock_seq >> 8 & 0x3F, clock_seq & 0xFF)
    return uuid.UUID(fields=(*fields, node), version=1)


# --- putting them in place --------------------------------------------------------------------------------------------


def install() -> None:
    """Replace the clocks and sources of chance of the standard library, once, before any fork."""
    os.environ["TZ"] = "UTC0"
    time.tzset()
    _install_time()
    _install_datetime()
    _install_random()


def _install_time() -> None:
    gmtime, strftime, asctime = time.gmtime, time.strftime, time.asctime

    def structured(seconds: float | None = None) -> time.struct_time:
        return gmtime(_now() if seconds is None else seconds)

    def formatted(format: str, t: Any = None) -> str:
        return strftime(format, structured() if t is None else t)

    def shown(t: Any = None) -> str:
        return asctime(structured() if t is None else t)

    def sleep(seconds: float) -> None:
        raise RuntimeError("time.sleep would stop every run of this script: await asyncio.sleep, or step.sleep")

    for name, function in (
        ("time", _now),
        ("time_ns", lambda: int(now_millis() * 1_000_000)),
        ("monotonic", loop_time),
        ("monotonic_ns", lambda: int(loop_time() * 1_000_000_000)),
        ("perf_counter", loop_time),
        ("perf_counter_ns", lambda: int(loop_time() * 1_000_000_000)),
        ("gmtime", structured),
        ("localtime", structured),
        ("strftime", formatted),
        ("asctime", shown),
        ("ctime", lambda seconds=None: asctime(structured(seconds))),
        ("sleep", sleep),
    ):
        setattr(time, name, _named(function, name, "time"))


def _named(function: Callable[..., Any], name: str, module: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    return function


def _install_datetime() -> None:
    """The methods of C types are behind a read-only view: change the dict itself."""

    def now(cls: Any, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return cls.fromtimestamp(_now(), tz)

    def utcnow(cls: Any) -> datetime.datetime:
        return cls.fromtimestamp(_now(), datetime.UTC).replace(tzinfo=None)

    methods = gc.get_referents(vars(datetime.datetime))[0]
    for function in (now, utcnow):
        methods[function.__name__] = classmethod(_named(function, function.__name__, "datetime"))
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))  # `date.today` asks time.time


def _install_random() -> None:
    os.urandom = random_bytes
    os.getrandom = lambda size, flags=0: random_bytes(size)
    random._urandom = random_bytes  # type: ignore[attr-defined]
    seed = random.Random.seed

    def seeded(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, int.from_bytes(random_bytes(32)) if a is None else a, version)

    random.Random.seed = seeded  # type: ignore[method-assign]
    for name in (
        "betavariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits", "getstate",
        "lognormvariate", "normalvariate", "paretovariate", "randbytes", "randint", "random", "randrange", "sample",
        "seed", "setstate", "shuffle", "triangular", "uniform", "vonmisesvariate", "weibullvariate",
    ):  # fmt: skip
        setattr(random, name, _dispatching(name))
    uuid.uuid1 = _uuid1


def _dispatching(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return getattr(_generator(), name)(*args, **kwargs)

    return _named(function, name, "random")

"""Digests of what is too large to be hashed quickly inside a sandbox (`crypto.subtle`)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from instances.runtimes.scripts.operations import CallFailed, Handler, RunFacts

ALGORITHMS = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512", "MD5": "md5"}
QUICK = 64 * 1024
"""Bytes hashed at once; more goes to a thread, so that other runs need not wait."""


class _Digest(msgspec.Struct):
    alg: str
    data: str
    key: str = ""


def digest_handlers() -> Mapping[str, Handler]:
    return {"digest": _digest, "hmac": _hmac}


async def _digest(facts: RunFacts, arguments: Any) -> dict[str, Any]:
    algorithm, _, data = _checked(arguments)
    return await _answer(data, lambda: hashlib.new(algorithm, data, usedforsecurity=False).digest())


async def _hmac(facts: RunFacts, arguments: Any) -> dict[str, Any]:
    algorithm, key, data = _checked(arguments)
    return await _answer(data, lambda: hmac.digest(key, data, algorithm))


async def _answer(data: bytes, work: Callable[[], bytes]) -> dict[str, Any]:
    result = work() if len(data) <= QUICK else await asyncio.to_thread(work)
    return {"v": base64.b64encode(result).decode()}


def _checked(arguments: Any) -> tuple[str, bytes, bytes]:
    try:
        call = msgspec.convert(arguments, _Digest)
        key, data = (base64.b64decode(text, validate=True) for text in (call.key, call.data))
        return ALGORITHMS[call.alg], key, data
    except (msgspec.ValidationError, binascii.Error, KeyError):
        raise CallFailed("TypeError", "that is nothing to be digested") from None

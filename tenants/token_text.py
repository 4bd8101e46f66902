"""What an API token looks like: `sk_`, 31 random base62 characters, 6 of checksum; 40 characters in all.

31 characters carry 184 bits. The checksum (CRC-32 in base62) lets a scanner, or a person, tell a token from anything
else and from a damaged one without asking the server.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from app.errors import InvalidRequest

PREFIX = "sk_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARACTERS = 31
CHECKSUM_CHARACTERS = 6
ADOPTED_MINIMUM, ADOPTED_MAXIMUM = 20, 200

_FAIR = 256 - 256 % len(ALPHABET)


def new_token(entropy: Callable[[int], bytes]) -> str:
    """A fresh token from `entropy(n) -> n random bytes`. Bytes that would favour some characters are thrown away."""
    characters: list[str] = []
    while len(characters) < RANDOM_CHARACTERS:
        characters += [ALPHABET[byte % len(ALPHABET)] for byte in entropy(RANDOM_CHARACTERS) if byte < _FAIR]
    body = "".join(characters[:RANDOM_CHARACTERS])
    return PREFIX + body + checksum(body)


def checksum(body: str) -> str:
    """The checksum of the characters between prefix and checksum.

    >>> checksum("0" * 31)
    '4WZ4EQ'
    """
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def intact(token: str) -> bool:
    """Whether `token` is whole: prefix, length and checksum as :func:`new_token` makes them."""
    return _shaped(token) and token.endswith(checksum(token[len(PREFIX) : -CHECKSUM_CHARACTERS]))


def damaged(token: str) -> bool:
    """Whether `token` looks like one of :func:`new_token` with a character wrong."""
    return _shaped(token) and not intact(token)


def _shaped(token: str) -> bool:
    characters = token.removeprefix(PREFIX)
    return (
        token.startswith(PREFIX)
        and len(characters) == RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
        and set(characters) <= set(ALPHABET)
    )


def check_adopted(token: str) -> str:
    """`token`, when it may be taken over from `millrace dev --token`; else raises :class:`InvalidRequest`."""
    fits = ADOPTED_MINIMUM <= len(token) <= ADOPTED_MAXIMUM and all("!" <= c <= "~" for c in token)
    if not (fits and token.startswith(PREFIX)):
        raise InvalidRequest(
            f"a token must be {PREFIX} and more: {ADOPTED_MINIMUM} to {ADOPTED_MAXIMUM} visible ASCII characters in all"
        )
    return token

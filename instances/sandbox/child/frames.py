"""Frames between a worker and a sandbox, from the sandbox's side, and what both sides must agree on.

Worker to sandbox: u32 (little endian) length, then that many bytes: parts, each u32 length and body. Sandbox to
worker: u32 length and a body, the answer to the frame. One frame is in flight at a time. The very first thing a
sandbox says, unasked, is the frame `READY`: it is locked and waits.

The progress page, memory shared with the worker: u64 number of the frame (from 1), u32 index of the part being worked
on. It tells the worker whose message a sandbox died on.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NoReturn

MAX_FRAME = 32 << 20
"""Bytes in a frame without its length, both ways."""
LENGTH = struct.Struct("<I")
PROGRESS = struct.Struct("<QI")
PAGE_BYTES = 4096
NO_PART = 0xFFFFFFFF
"""Index on the progress page between the arrival of a frame and its first part, and after its last."""
READY = b"ready"

EXIT_CLOSED = 0
"""The worker closed the connection."""
EXIT_LOCK = 81
"""A lock did not close; no tenant's code has run."""
EXIT_OPEN = 82
"""The engine failed before it had seen any tenant's code."""
EXIT_PROTOCOL = 83
"""A frame that cannot be, or an answer larger than a frame may be."""
EXIT_MEMORY = 84
"""The engine ran out of memory."""
EXIT_ENGINE = 85
"""The engine failed."""

_CHUNK = 1 << 16


class Frames:
    """The sandbox's end of the connection. An engine pulls parts and answers when there are none left::

        while True:
            while (part := frames.next_part()) is not None:
                ...                      # act on it until nothing moves any more
            frames.reply(answer)

    Not for several threads. The process ends (`EXIT_CLOSED`) when the worker closes the connection.
    """

    def __init__(self, connection: int, page: mmap.mmap) -> None:
        self._connection = connection
        self._page = page
        self._received = b""
        self._frame: bytes | None = None
        self._at = 0
        self._number = 0
        self._part = NO_PART

    def next_part(self) -> bytes | None:
        """The next part of the frame in hand, None when there is none left. Waits for a frame if none is in hand.

        The progress page names the part from now until the next call.
        """
        if self._frame is None:
            self._frame = self._receive()
            self._at, self._part = 0, NO_PART
            self._number += 1
        frame, at = self._frame, self._at
        if at == len(frame):
            PROGRESS.pack_into(self._page, 0, self._number, NO_PART)
            return None
        if at + 4 > len(frame):
            leave(EXIT_PROTOCOL)
        end = at + 4 + LENGTH.unpack_from(frame, at)[0]
        if end > len(frame):
            leave(EXIT_PROTOCOL)
        self._at = end
        self._part = 0 if self._part == NO_PART else self._part + 1
        PROGRESS.pack_into(self._page, 0, self._number, self._part)
        return frame[at + 4 : end]

    def reply(self, body: bytes) -> None:
        """Answer the frame in hand, which is over with this. A body over `MAX_FRAME` ends the process."""
        self._frame = None
        self.send(body)

    def send(self, body: bytes) -> None:
        if len(body) > MAX_FRAME:
            leave(EXIT_PROTOCOL)
        rest = memoryview(LENGTH.pack(len(body)) + body)
        try:
            while rest:
                rest = rest[os.write(self._connection, rest) :]
        except OSError:
            leave(EXIT_CLOSED)

    def _receive(self) -> bytes:
        received = self._received
        while len(received) < 4:
            received += self._read()
        length = LENGTH.unpack_from(received)[0]
        if length > MAX_FRAME:
            leave(EXIT_PROTOCOL)
        end = 4 + length
        if len(received) < end:
            chunks, have = [received], len(received)
            while have < end:
                chunk = self._read()
                chunks.append(chunk)
                have += len(chunk)
            received = b"".join(chunks)
        self._received = received[end:]
        return received[4:end]

    def _read(self) -> bytes:
        try:
            chunk = os.read(self._connection, _CHUNK)
        except OSError:
            leave(EXIT_CLOSED)
        if not chunk:
            leave(EXIT_CLOSED)
        return chunk


def leave(code: int) -> NoReturn:
    """End this process at once, running nothing on the way out. Engines use `EXIT_MEMORY` and `EXIT_ENGINE`."""
    os._exit(code)

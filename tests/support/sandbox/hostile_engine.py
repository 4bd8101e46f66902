"""An engine for tests: every part of a frame is Python, run with everything a tenant could ever have, and more."""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import multiprocessing
import os
import queue
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

import lockdown
from control import Limits
from frames import EXIT_MEMORY, Frames, leave

MODULES = (
    ctypes, gc, json, mmap, multiprocessing, os, queue, random, resource, select, signal, socket, struct, subprocess,
    sys, threading, time, lockdown,
)  # fmt: skip


class Hostile:
    syscalls = frozenset(("fstat", "lseek"))

    def prepare(self) -> None:
        self.names: dict[str, Any] = {module.__name__: module for module in MODULES}

    def open(self, limits: Limits) -> None:
        """Starts the thread on which `elsewhere(function)` runs, before the lock."""
        jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def work() -> None:
            while True:
                answers.put(attempt(jobs.get()))

        def elsewhere(function: Any) -> Any:
            jobs.put(function)
            return answers.get()

        threading.Thread(target=work, daemon=True).start()
        self.names |= {"elsewhere": elsewhere, "call": lockdown.call, "own": self}

    def serve(self, frames: Frames, limits: Limits) -> NoReturn:
        self.names["frames"] = frames
        while True:
            said = []
            while (part := frames.next_part()) is not None:
                said.append(attempt(lambda part=part: self.run(part.decode())))
            frames.reply(json.dumps(said).encode())

    def run(self, source: str) -> Any:
        try:
            code = compile(source, "<part>", "eval")
        except SyntaxError:
            self.names.pop("result", None)
            exec(source, self.names)
            return self.names.get("result")
        return eval(code, self.names)


def attempt(function: Any) -> Any:
    try:
        value = function()
        json.dumps(value)
        return value
    except MemoryError:
        leave(EXIT_MEMORY)
    except OSError as error:
        return [type(error).__name__, error.errno]
    except BaseException as error:
        return [type(error).__name__, str(error)]


def engine() -> Hostile:
    return Hostile()

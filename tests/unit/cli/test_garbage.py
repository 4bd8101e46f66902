"""Processes that serve look for garbage seldom, and not at what they have loaded. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SEEN = """
import gc
looks = []
gc.callbacks.append(lambda phase, info: looks.append(info["generation"]) if phase == "start" else None)
"""
RUNNING = """
from app.cli.event_loop import run_async
async def busy():
    looks.clear()
    kept = [[n] for n in range(5_000)]
    print(len(looks), len(kept))
run_async(busy())
"""
READY = """
from app.cli.worker import _ready
old = []
_ready()
seen = {id(object) for object in gc.get_objects()}
print(id(old) in seen, gc.get_freeze_count() > 10_000)
ring = []
ring.append(ring)
del ring
print(gc.collect())
"""


def _said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SEEN + program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_busy_process_does_not_stop_for_every_few_hundred_objects():
    assert _said(RUNNING) == ["0", "5000"]


def test_a_worker_that_is_ready_looks_at_what_came_since_only():
    assert _said(READY) == ["False", "True", "1"]

"""A worker of its own: `python -P driver.py < {"landlock": bool, "frames": [source, …]}`, answers as JSON.

One child serves all frames; where it dies, `["died", cause, status]` is the answer and the next frame gets a new one.
`WORKER` in a source is this process's id, `SIBLING` that of another child.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[3]))

from instances.sandbox.errors import SandboxDied
from instances.sandbox.host import SandboxHost
from tests.support.sandbox import do, hostile


async def main() -> None:
    order = json.load(sys.stdin)
    host = SandboxHost("hostile", hostile(landlock=order["landlock"]))
    answers = []
    try:
        facts = await host.start()
        sibling, child = await host.spawn(), await host.spawn()
        await sibling.ready()
        rights = Path(f"/proc/{sibling.pid}/status").read_text()
        names = f"WORKER, SIBLING = {os.getpid()}, {sibling.pid}"
        for source in order["frames"]:
            try:
                answers.append((await do(child, names, source))[1])
            except SandboxDied as death:
                answers.append(["died", death.cause, death.status])
                child = await host.spawn()
        await do(sibling, "1")
    finally:
        await host.close()
    print(json.dumps({"uid": os.getuid(), "facts": facts, "rights": rights, "answers": answers}))


uvloop.run(main())  # as workers do; the rest of the suite is on asyncio's loop

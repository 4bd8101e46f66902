"""Clients that need Node: wrangler, the TypeScript SDK, an EventSource. Installed once into pytest's cache.

The versions are those of `node/package-lock.json`. Nothing but npm and its registry is needed; where one of them is
missing, the tests that ask for these clients are skipped and say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).with_name("node")
NODE = "22.23.3"
OLDEST_NODE = (22, 12)
"""wrangler refuses to start with an older one."""
INSTALL_SECONDS = 300
RUN_SECONDS = 60


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    """Standard output and error, as they came."""


@dataclass(frozen=True)
class NodeClients:
    """Where the clients are."""

    node: str
    folder: Path
    scripts: Path = PROJECT
    """Where the scripts are that use them."""

    async def run(
        self,
        script: Path | str,
        *arguments: str,
        cwd: Path,
        environment: dict[str, str],
        typed: str | None = None,
    ) -> Ran:
        """Run a script with Node. A name without a folder is that of an installed client's own; `typed`: its input."""
        if isinstance(script, str):
            script = self.folder / "node_modules" / script
        terminal = {"NO_COLOR": "1", "FORCE_COLOR": "0"}
        compiled = {"NODE_COMPILE_CACHE": str(self.folder / "compiled")}  # a fifth of what starting wrangler takes
        process = await asyncio.create_subprocess_exec(
            *(self.node, str(script), *arguments),
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(cwd), **terminal, **compiled, **environment},
            stdin=asyncio.subprocess.DEVNULL if typed is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(RUN_SECONDS):
                out, _ = await process.communicate(None if typed is None else typed.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Ran(process.returncode or 0, out.decode())

    def project(self, folder: Path) -> Path:
        """Make `folder` one in which scripts find the clients: the test's own copy of the scripts of this project."""
        for script in self.scripts.glob("*.*js*"):
            shutil.copy(script, folder)
        (folder / "node_modules").symlink_to(self.folder / "node_modules")
        return folder


def node_clients(cache: Path, project: Path = PROJECT) -> NodeClients:
    """The clients of a project, installed below `cache` unless they are there. Skips the test where that is not
    possible.
    """
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed: clients that need Node are not tried")
    lock = hashlib.sha256((project / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = _installed(cache / f"clients-{lock}", "ci", project=project)
    return NodeClients(_node(cache), folder, project)


def wrangler_with_runtime(cache: Path) -> NodeClients:
    """The same wrangler with what it runs workers in, which the clients do without: for `wrangler dev`."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: there is no wrangler to compare with")
    versions = json.loads((PROJECT / "package.json").read_bytes())["dependencies"]
    package = f"wrangler@{versions['wrangler']}"
    return NodeClients(_node(cache), _installed(cache / package, "install", "--no-package-lock", package))


def _installed(folder: Path, *command: str, project: Path | None = None) -> Path:
    """`folder` with what `npm command` makes of the project, or of nothing: all or nothing."""
    if folder.exists():
        return folder
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    if project is not None:
        shutil.copytree(project, unfinished, dirs_exist_ok=True)
    options = ("--prefix", str(unfinished), "--ignore-scripts", "--no-audit", "--no-fund")
    patience = ("--fetch-retries=1", "--fetch-timeout=60000")
    done = subprocess.run(
        ["npm", *command, *options, *patience],
        cwd=unfinished,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(unfinished)
        pytest.skip(f"npm could not install clients that need Node: {done.stderr.strip()[-300:]}")
    try:
        unfinished.rename(folder)
    except OSError:  # somebody else was faster
        shutil.rmtree(unfinished)
    return folder


def _node(cache: Path) -> str:
    """A Node that is new enough: the machine's, or one from the registry."""
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)", said)
    if version and (int(version[1]), int(version[2])) >= OLDEST_NODE:
        return "node"
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    if platform.system() != "Linux" or machine is None:
        pytest.skip(f"Node {said.strip()} is too old for the clients that need it, and there is none to install here")
    package = f"node-linux-{machine}"
    folder = _installed(cache / f"node-{NODE}", "install", "--no-package-lock", f"{package}@{NODE}")
    return str(folder / "node_modules" / package / "bin" / "node")

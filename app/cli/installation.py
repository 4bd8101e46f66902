"""The data folder of `millrace dev`: what it keeps between starts, and which format it has.

    millrace.json   format, release that wrote it last, ids, where the services' data is     0600
    secret          MILLRACE_SECRET of this installation                                     0600
    dev-token       the API token of the first account                                       0600
    ready.json      address and credentials of the running server; only while it runs       0600
    services/       PostgreSQL's and Valkey's data, sockets and logs
    logs/           what the API and the worker say

As root the services run as another user. When that user cannot enter the data folder (root's home is closed), their
data goes to a folder of its own under /var/lib/millrace; `millrace.json` says which.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from app import __version__
from app.embedded.postgres import SETTINGS, EmbeddedPostgres
from app.embedded.service_user import ServiceUser
from app.embedded.valkey import EmbeddedValkey

FORMAT = 1
DEFAULT_DIRECTORY = Path(".millrace")
SYSTEM_DIRECTORY = Path("/var/lib/millrace")
DATABASE = "millrace"


_OURS = re.compile(r"dev\.lock|secret|\.(secret|millrace\.json)\..*")
"""What a first start that was killed may leave: it is begun anew. The last ones are unfinished files."""


class InstallationError(Exception):
    """A data folder cannot be used; one sentence for a person."""


class Marker(msgspec.Struct, kw_only=True):
    """`millrace.json`. Unknown fields are dropped, so later releases may add some within a format."""

    format: int = FORMAT
    release: str = __version__
    id: str
    services: str | None = None
    """Absolute path of the services' data when it is not inside the folder."""
    account_id: str | None = None
    """32 hex characters."""
    toured: bool = False
    """The first start's tour is over."""
    database_url: str | None = None
    """The external database of the last start."""
    redis_url: str | None = None


class Ready(msgspec.Struct, kw_only=True):
    """`ready.json`, and what `--ready-file` gets."""

    base_url: str
    account_id: str
    api_token: str
    pid: int
    postgres_dsn: str
    redis_url: str


class Installation:
    """One data folder, checked to be ours and not from a newer release."""

    def __init__(self, directory: Path, marker: Marker) -> None:
        self.directory = directory
        self.marker = marker

    @classmethod
    def open(cls, directory: Path, *, create: bool = False) -> Installation:
        """The installation in `directory`. Raises :class:`InstallationError` when there is none or it is too new."""
        directory = directory.expanduser().resolve()
        path = directory / "millrace.json"
        try:
            marker = _read_marker(path)
        except FileNotFoundError:
            if not create:
                raise InstallationError(
                    f"{directory} is not a data folder of Millrace: start one there with `millrace dev --data-dir`."
                ) from None
            return cls._make(directory)
        except NotADirectoryError:
            raise InstallationError(f"{directory} is not a folder: choose another --data-dir.") from None
        return cls(directory, marker)

    @classmethod
    def _make(cls, directory: Path) -> Installation:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if any(not _OURS.fullmatch(path.name) for path in directory.iterdir()):
            raise InstallationError(
                f"{directory} is not empty and not a data folder of Millrace: choose another --data-dir."
            )
        installation = cls(directory, Marker(id=secrets.token_hex(8)))
        installation.marker.services = installation._outside_home()
        if not (directory / "secret").exists():
            write_private(directory / "secret", secrets.token_hex(32).encode())
        installation.save()  # last: a folder with a marker is complete
        return installation

    def save(self) -> None:
        """Write the marker, with this release's version."""
        self.marker.release = __version__
        write_private(self.directory / "millrace.json", msgspec.json.format(msgspec.json.encode(self.marker)))

    def secret(self) -> str:
        """The installation's secret. Raises :class:`InstallationError` when it is gone."""
        text = read_text(self.directory / "secret")
        if text is None:
            raise InstallationError(
                f"{self.directory / 'secret'} is missing: restore it, or set MILLRACE_SECRET to what it was."
            )
        return text

    @property
    def token(self) -> str | None:
        """The kept API token."""
        return read_text(self.directory / "dev-token")

    def keep_token(self, token: str) -> None:
        write_private(self.directory / "dev-token", token.encode())

    def services_home(self) -> Path:
        """Directory of the services' data, made when missing."""
        home = Path(self.marker.services) if self.marker.services else self.directory / "services"
        home.mkdir(mode=0o711, parents=True, exist_ok=True)
        home.chmod(0o711)
        return home

    def removal(self) -> str:
        """The command that removes everything in this installation, services' data outside the folder included."""
        folders = [str(self.directory), *([self.marker.services] if self.marker.services else [])]
        return f"rm -r {shlex.join(folders)}"

    def postgres(self, *, connections: int = 0) -> EmbeddedPostgres:
        """The folder's PostgreSQL; if started here, it takes `connections`, or the usual number if that is more."""
        most = max(connections, int(SETTINGS["max_connections"]))
        return EmbeddedPostgres(self.services_home(), settings={"max_connections": str(most)})

    def valkey(self) -> EmbeddedValkey:
        return EmbeddedValkey(self.services_home())

    def logs(self) -> Path:
        directory = self.directory / "logs"
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def read_ready(self) -> Ready | None:
        """What the running server said; None when none runs."""
        try:
            ready = msgspec.json.decode((self.directory / "ready.json").read_bytes(), type=Ready)
            os.kill(ready.pid, 0)
        except (OSError, msgspec.DecodeError):
            return None
        return ready

    def _outside_home(self) -> str | None:
        user = ServiceUser.choose()
        if user.can_enter(self.directory):
            return None
        home = SYSTEM_DIRECTORY / self.marker.id
        try:
            home.mkdir(mode=0o711, parents=True)
            for directory in (SYSTEM_DIRECTORY, home):
                directory.chmod(0o711)
        except OSError as error:
            raise InstallationError(
                f"PostgreSQL runs as user {user.name}, who cannot enter {self.directory}, and {home} cannot be made "
                f"({error.strerror}): choose a --data-dir that user can enter."
            ) from None
        write_private(home / "belongs-to", f"{self.directory}\n".encode())
        return str(home)


def data_directory(given: Path | None) -> Path:
    """`--data-dir`, or MILLRACE_DATA_DIR, or `.millrace` here."""
    return given or Path(os.environ.get("MILLRACE_DATA_DIR") or DEFAULT_DIRECTORY)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def read_text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def _read_marker(path: Path) -> Marker:
    content = path.read_bytes()
    try:
        rough: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
        if int(rough.get("format", 0)) > FORMAT:
            raise InstallationError(
                f"{path.parent} was written by Millrace {rough.get('release', '(unknown)')}, which is newer than this "
                f"one ({__version__}): upgrade, or choose another --data-dir."
            )
        return msgspec.convert(rough, Marker)
    except (msgspec.MsgspecError, TypeError, ValueError):
        raise InstallationError(f"{path} is damaged: restore it, or choose another --data-dir.") from None

"""Make `.venv` from the lock files, with nothing but the standard library of Python 3.11 or newer.

    python3 bootstrap.py run     what `make run` needs
    python3 bootstrap.py dev     also what `make test` and `make lint` need

A repeated call does nothing unless a lock file or the interpreter changed. When neither pip nor ensurepip is there (a
bare Debian), pip's wheel is fetched from the package index that pip itself would use: PIP_* variables, then pip's
configuration files, then pip's default.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import hashlib
import html.parser
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
OLDEST_PYTHON = (3, 11)

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "-qq")
VERIFIED = ("--only-binary=:all:", "--require-hashes")
"""Options of pip and of uv: a package is what the lock file says, and runs no code when it is installed."""

PIP_DEFAULT_INDEX = "https://" + ".".join(("pypi", "org")) + "/simple"
"""What pip falls back to when nothing is configured; only needed to fetch pip itself."""

LAUNCHER = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from app.cli.main import main

sys.exit(main())
"""


class Failure(Exception):
    """The environment cannot be made; the text is for a person."""


def main(arguments: list[str]) -> int:
    if sys.version_info < OLDEST_PYTHON:
        print(f"Millrace needs Python 3.11 or newer; this is {sys.version.split()[0]}.", file=sys.stderr)
        return 1
    if len(arguments) != 1 or arguments[0] not in LOCKS:
        print("usage: bootstrap.py run|dev", file=sys.stderr)
        return 2
    try:
        with one_at_a_time():
            install(arguments[0])
    except Failure as failure:
        print(f"bootstrap: {failure}", file=sys.stderr)
        return 1
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        print(f"bootstrap: {where}{problem.strerror or problem}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; the next call begins again where it has to.", file=sys.stderr)
        return 130
    return 0


def install(level: str) -> None:
    """Bring `.venv` to `level`. `dev` includes `run`."""
    wanted = {name: hashlib.sha256(LOCKS[name].read_bytes()).hexdigest() for name in LOCKS}
    python = VENV / "bin" / "python"
    if not works(python):
        make_venv()
    stamp = read_stamp()
    done = [name for name in ("dev", "run") if stamp.get(name) == wanted[name]]
    if "dev" in done or level in done:
        return
    if not has_pip(python):
        install_pip(python)
    print(f"Installing the packages of {LOCKS[level].name} into {VENV.name} (once, a minute at most) …", flush=True)
    if not install_with_uv(python, LOCKS[level]):
        pip(python, "install", "--no-compile", *VERIFIED, "-r", str(LOCKS[level]))
    compile_packages(python)
    link_project(python)
    STAMP.write_text(json.dumps({level: wanted[level]}))


def works(python: Path) -> bool:
    """Whether the environment's interpreter still runs: it dangles after a move or an upgrade of Python."""
    with contextlib.suppress(OSError):
        check = [python, "-c", f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"]
        return subprocess.run(check, capture_output=True, check=False).returncode == 0
    return False


def make_venv() -> None:
    try:
        import venv
    except ImportError:
        raise Failure(
            f"{sys.executable} comes without the venv module. Install it (Debian: apt install python3-venv)."
        ) from None
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(VENV)


def read_stamp() -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(STAMP.read_text())
    return {}


def has_pip(python: Path) -> bool:
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def pip(python: Path, *arguments: str) -> None:
    if subprocess.run([python, *PIP, *arguments], check=False).returncode != 0:
        raise Failure("pip failed; its message is above.")


def install_with_uv(python: Path, lock: Path) -> bool:
    """Let uv install what a lock file names, if it names uv: that takes seconds, where pip takes a minute.

    pip installs uv itself, so that its hash is checked, too. False: something failed, and pip may know better; it reads
    more of its configuration than uv is told of.
    """
    uv = re.search(r"^uv==.*?(?=^\S|\Z)", lock.read_text(), re.MULTILINE | re.DOTALL)
    if uv is None:
        return False
    with tempfile.TemporaryDirectory() as directory:
        only_uv = Path(directory) / "uv.lock"
        only_uv.write_text(uv[0])
        commands: list[list[str | Path]] = [
            [python, *PIP, "install", "--no-deps", *VERIFIED, "-r", only_uv],
            [VENV / "bin" / "uv", "pip", "install", "--python", python, *VERIFIED, "-r", lock],
        ]
        with contextlib.suppress(OSError):
            environment = os.environ | PipConfig().for_uv
            runs = (subprocess.run(one, env=environment, capture_output=True, check=False) for one in commands)
            return all(run.returncode == 0 for run in runs)
    return False


def compile_packages(python: Path) -> None:
    """Bytecode of what is installed, on all cores: pip would compile file by file, for a third of its time.

    Files that do not compile are meant for another Python; whoever imports one hears of it then.
    """
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", str(VENV / "lib")], check=False)


def install_pip(python: Path) -> None:
    """pip into the environment: Python's bundled copy, else one from the index."""
    if subprocess.run([python, "-m", "ensurepip"], capture_output=True, check=False).returncode == 0:
        return
    with tempfile.TemporaryDirectory() as directory:
        wheel = PipFetcher(PipConfig()).fetch(Path(directory))
        command = [
            python,
            f"{wheel}/pip",
            "--disable-pip-version-check",
            "--quiet",
            "install",
            "--no-index",
            str(wheel),
        ]
        if subprocess.run(command, check=False).returncode != 0:
            raise Failure("pip could not install itself; its message is above.")


def link_project(python: Path) -> None:
    """Put this checkout on the environment's path and `millrace` into its bin directory; nothing is built."""
    asked = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(asked.stdout.strip()) / "millrace.pth").write_text(f"{ROOT}\n")
    launcher = VENV / "bin" / "millrace"
    launcher.write_text(LAUNCHER.format(python=python))
    launcher.chmod(0o755)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two `make` in one checkout take turns."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


class PipConfig:
    """The part of pip's configuration that says where packages come from."""

    def __init__(self) -> None:
        parser = configparser.RawConfigParser(strict=False)
        with contextlib.suppress(configparser.Error):
            parser.read(self._files(), encoding="utf-8")
        self._values: dict[str, str] = {}
        for section in ("global", "install"):
            if parser.has_section(section):
                self._values.update({key.replace("_", "-"): value for key, value in parser.items(section)})
        for name, value in os.environ.items():
            if name.startswith("PIP_") and value:
                self._values[name[4:].lower().replace("_", "-")] = value

    @staticmethod
    def _files() -> list[Path]:
        """Least important first, as pip reads them."""
        home = Path.home()
        chosen = os.environ.get("PIP_CONFIG_FILE")
        if chosen == os.devnull:
            return []
        shared = [
            Path(part) / "pip/pip.conf" for part in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if part
        ]
        user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
        mac = home / "Library/Application Support/pip/pip.conf"
        return [*shared, Path("/etc/pip.conf"), home / ".pip/pip.conf", mac, user, *([Path(chosen)] if chosen else [])]

    def _list(self, key: str) -> list[str]:
        return self._values.get(key, "").split()

    @property
    def indexes(self) -> list[str]:
        if self._values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            return []
        return [self._values.get("index-url", PIP_DEFAULT_INDEX), *self._list("extra-index-url")]

    @property
    def find_links(self) -> list[str]:
        return self._list("find-links")

    @property
    def certificates(self) -> str | None:
        return self._values.get("cert")

    @property
    def proxy(self) -> str | None:
        return self._values.get("proxy")

    @property
    def for_uv(self) -> dict[str, str]:
        """All of this as variables for uv. Any index may have a package, as with pip: hashes say whether it is it."""
        told = {
            "UV_DEFAULT_INDEX": "".join(self.indexes[:1]),
            "UV_INDEX": " ".join(self.indexes[1:]),
            "UV_NO_INDEX": "" if self.indexes else "1",
            "UV_FIND_LINKS": ",".join(self.find_links),
            "SSL_CERT_FILE": self.certificates or "",
            "ALL_PROXY": self.proxy or "",
        }
        return {"UV_INDEX_STRATEGY": "unsafe-best-match"} | {name: value for name, value in told.items() if value}


class Links(html.parser.HTMLParser):
    """The links of an index page: address and the Python versions it names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a" and values.get("href"):
            self.found.append((values["href"] or "", values.get("data-requires-python") or ""))


class PipFetcher:
    """Finds and fetches pip's newest wheel."""

    WHEEL = re.compile(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl")

    def __init__(self, config: PipConfig) -> None:
        self._config = config
        context = ssl.create_default_context(cafile=config.certificates)
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if config.proxy:
            handlers.append(urllib.request.ProxyHandler({"http": config.proxy, "https": config.proxy}))
        self._opener = urllib.request.build_opener(*handlers)

    def fetch(self, directory: Path) -> Path:
        """pip's wheel, checked against the hash its link names. Raises :class:`Failure`."""
        candidates: list[tuple[tuple[int, ...], str]] = []
        problems: list[str] = []
        for page in self._pages():
            try:
                candidates += self._candidates(page)
            except (OSError, ValueError) as problem:
                problems.append(f"{without_credentials(page)}: {problem}")
        if not candidates:
            tried = "; ".join(problems) or "no package index is configured"
            raise Failure(
                f"this Python has no pip, and pip's wheel could not be fetched ({tried}). "
                "Install pip (Debian: apt install python3-venv), or set PIP_INDEX_URL."
            )
        address = max(candidates)[1]
        location, _, fragment = address.partition("#")
        content = self._read(location)
        expected = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)
        if expected and hashlib.sha256(content).hexdigest() != expected[1]:
            raise Failure(f"{without_credentials(location)} does not have the content its index promised.")
        wheel = directory / location.rpartition("/")[2]
        wheel.write_bytes(content)
        return wheel

    def _pages(self) -> Iterator[str]:
        for link in self._config.find_links:
            yield link if "://" in link else Path(link).expanduser().resolve().as_uri()
        for index in self._config.indexes:
            yield f"{index.rstrip('/')}/pip/"

    def _candidates(self, page: str) -> Iterator[tuple[tuple[int, ...], str]]:
        for address, python in self._links(page):
            name = urllib.parse.unquote(address.partition("#")[0].rpartition("/")[2])
            if (match := self.WHEEL.fullmatch(name)) and suits(python):
                yield tuple(map(int, match[1].split("."))), address

    def _links(self, page: str) -> list[tuple[str, str]]:
        parts = urllib.parse.urlsplit(page)
        if parts.scheme == "file":
            folder = Path(urllib.request.url2pathname(parts.path))
            if folder.is_dir() and not (folder / "index.html").exists():
                return [(path.as_uri(), "") for path in folder.iterdir()]
            page = (folder / "index.html" if folder.is_dir() else folder).as_uri()
        parser = Links()
        parser.feed(self._read(page).decode("utf-8", "replace"))
        return [(urllib.parse.urljoin(page, address), python) for address, python in parser.found]

    def _read(self, address: str) -> bytes:
        parts = urllib.parse.urlsplit(address)
        request = urllib.request.Request(without_credentials(address), headers={"Accept": "text/html, */*;q=0.1"})
        if parts.username is not None:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        with self._opener.open(request, timeout=60) as answer:
            return answer.read()


def suits(requires_python: str) -> bool:
    """Whether this interpreter is new enough for a wheel; other clauses do not occur among pip's."""
    oldest = re.search(r">=\s*(\d+)\.(\d+)", requires_python)
    return oldest is None or sys.version_info >= (int(oldest[1]), int(oldest[2]))


def without_credentials(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

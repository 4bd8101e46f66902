"""`bootstrap.py`: where packages come from, and what it says when it cannot go on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import bootstrap


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any configuration of pip, nor a variable."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        bootstrap.PipConfig,
        "_files",
        staticmethod(lambda: [path for path in (tmp_path / "shared.conf", tmp_path / "user.conf") if path.exists()]),
    )
    return tmp_path


def wheel(directory: Path, version: str, content: bytes = b"wheel") -> Path:
    path = directory / f"pip-{version}-py3-none-any.whl"
    path.write_bytes(content)
    return path


def test_variables_win_over_files_and_files_over_the_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bootstrap.PipConfig().indexes == [bootstrap.PIP_DEFAULT_INDEX]
    (home / "shared.conf").write_text("[global]\nindex-url = https://shared/simple\nproxy = http://proxy\n")
    (home / "user.conf").write_text(
        "[global]\nindex_url = https://user/simple\nextra-index-url =\n https://a\n https://b\n"
    )
    config = bootstrap.PipConfig()
    assert config.indexes == ["https://user/simple", "https://a", "https://b"]
    assert config.proxy == "http://proxy"
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    assert bootstrap.PipConfig().indexes[0] == "https://variable/simple"
    assert bootstrap.PipConfig().find_links == ["/one", "/two"]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert bootstrap.PipConfig().indexes == []


def test_the_newest_pip_that_fits_is_fetched_from_a_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = home / "links"
    links.mkdir()
    for version in ("9.0", "24.3.1", "24.10"):
        wheel(links, version, version.encode())
    (links / "pip-99.0.tar.gz").touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    found = bootstrap.PipFetcher(bootstrap.PipConfig()).fetch(home)
    assert (found.name, found.read_bytes()) == ("pip-24.10-py3-none-any.whl", b"24.10")


def index_page(directory: Path, link: Path, digest: str) -> str:
    """A package index on disk whose page for pip has the wheel `link`, and one for a Python that is not there yet."""
    page = directory / "simple" / "pip"
    page.mkdir(parents=True)
    (page / "index.html").write_text(
        f'<a href="{link.as_uri()}#sha256={digest}" data-requires-python="&gt;=3.8">pip</a>'
        '<a href="pip-999.0-py3-none-any.whl" data-requires-python="&gt;=9.0">pip</a>'
    )
    return page.parent.as_uri()


@pytest.mark.parametrize("honest", [True, False])
def test_a_wheel_must_be_what_its_index_promised(home: Path, monkeypatch: pytest.MonkeyPatch, honest: bool) -> None:
    link = wheel(home, "24.0")
    digest = hashlib.sha256(b"wheel" if honest else b"another").hexdigest()
    monkeypatch.setenv("PIP_INDEX_URL", index_page(home, link, digest))
    (home / "into").mkdir()
    fetcher = bootstrap.PipFetcher(bootstrap.PipConfig())
    if honest:
        assert fetcher.fetch(home / "into").read_bytes() == b"wheel"
    else:
        with pytest.raises(bootstrap.Failure, match="does not have the content its index promised"):
            fetcher.fetch(home / "into")


def test_uv_is_told_what_pip_would_use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert bootstrap.PipConfig().for_uv == {"UV_DEFAULT_INDEX": bootstrap.PIP_DEFAULT_INDEX, **strategy}
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    (home / "user.conf").write_text("[global]\nno-index = yes\ncert = /ca.pem\nproxy = http://proxy\n")
    assert bootstrap.PipConfig().for_uv == {
        **{"UV_NO_INDEX": "1", "UV_FIND_LINKS": "/one,/two", "SSL_CERT_FILE": "/ca.pem", "ALL_PROXY": "http://proxy"},
        **strategy,
    }
    (home / "user.conf").write_text("[global]\nindex-url = https://a\nextra-index-url =\n https://b\n https://c\n")
    told = bootstrap.PipConfig().for_uv
    assert (told["UV_DEFAULT_INDEX"], told["UV_INDEX"]) == ("https://a", "https://b https://c")


@pytest.mark.parametrize(
    ("lock", "fails", "ran"),
    [
        ("a==1\n", "", ["pip a==1"]),
        ("a==1\nuv==2 \\\n    --hash=x\nz==3\n", "", ["pip uv==2", "uv a==1"]),
        ("uv==2\n", "uv", ["pip uv==2", "uv uv==2", "pip uv==2"]),
    ],
    ids=["not locked", "by uv", "by pip after all"],
)
def test_uv_installs_where_it_can(home: Path, monkeypatch, lock: str, fails: str, ran: list[str]) -> None:
    """Stand-ins for pip and uv note that they were called, and the first package they were to install."""
    programs = home / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, said in (("python", "pip"), ("uv", "uv")):
        note = f'for file; do :; done; echo "{said} $(head -n 1 "$file" | cut -d " " -f 1)" >> ran'
        (programs / name).write_text(f'#!/bin/sh\ncase "$*" in *" install "*) {note};; esac\n[ "{fails}" != {name} ]\n')
        (programs / name).chmod(0o755)
    (home / "lock").write_text(lock)
    for name, value in (
        ("VENV", home / ".venv"),
        ("STAMP", home / "stamp"),
        ("LOCKS", dict.fromkeys(("run", "dev"), home / "lock")),
    ):
        monkeypatch.setattr(bootstrap, name, value)
    monkeypatch.setattr(bootstrap, "link_project", lambda _python: None)
    monkeypatch.chdir(home)
    bootstrap.install("dev")
    assert (home / "ran").read_text().splitlines() == ran
    assert (home / "stamp").exists()


def test_no_index_is_told_without_its_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hidden@127.0.0.1:1/simple")
    with pytest.raises(bootstrap.Failure, match="pip's wheel could not be fetched") as raised:
        bootstrap.PipFetcher(bootstrap.PipConfig()).fetch(home)
    assert "127.0.0.1:1" in str(raised.value)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (bootstrap.Failure("No way."), 1, "bootstrap: No way.\n"),
        (PermissionError(13, "Permission denied", "/x/.venv"), 1, "bootstrap: /x/.venv: Permission denied.\n"),
        (KeyboardInterrupt(), 130, "bootstrap: interrupted; the next call begins again where it has to.\n"),
    ],
)
def test_what_goes_wrong_is_one_line(monkeypatch, capsys, problem: BaseException, code: int, said: str) -> None:
    def fails(_level: str) -> None:
        raise problem

    monkeypatch.setattr(bootstrap, "install", fails)
    assert bootstrap.main(["run"]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("arguments", [[], ["runs"], ["run", "dev"]])
def test_wrong_usage(capsys, arguments: list[str]) -> None:
    assert bootstrap.main(arguments) == 2
    assert "usage: bootstrap.py run|dev" in capsys.readouterr().err

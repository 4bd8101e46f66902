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

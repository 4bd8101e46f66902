"""`millrace health`, against what may listen where an API should."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.cli import main as command_line


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers one request with these bytes: its address, and the request's first line."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(65536).partition(b"\r\n")[0])
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", asked
        thread.join()


def health(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bind: str, *options: str):
    monkeypatch.setenv("MILLRACE_BIND", bind)
    monkeypatch.setenv("MILLRACE_METRICS_BIND", "")
    code = command_line.run(["health", *options])
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", 0, "ready"),
        (b'HTTP/1.1 503 No\r\n\r\n{"status":"unavailable"}', 1, '{"status":"unavailable"}'),
        (b"\x00\x01\r\n", 1, "API: "),
        (b"", 1, "API: "),
    ],
)
def test_whatever_answers(monkeypatch, capsys, answer, code, said):
    with answering(answer) as (bind, asked):
        result, out = health(monkeypatch, capsys, bind)
    assert (result, out[: len(said)]) == (code, said)
    assert asked == [b"GET /readyz?exclude=redis HTTP/1.1"]


def test_nothing_listens(monkeypatch, capsys):
    code, out = health(monkeypatch, capsys, "127.0.0.1:1", "--json")
    assert code == 1
    assert json.loads(out)["ready"] is False
    assert "names no fixed port" in json.loads(out)["problem"]

"""Log lines (app.observability.logging)."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.observability.logging import configure_logging
from app.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_lines_are_json_with_context_and_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger("x").info("request", path="/a", account=None, token="sk_secret", payload={"card": 1})
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "info",
        "path": "/a",
        "payload": "[redacted]",
        "request_id": "r1",
        "token": "[redacted]",
    }


def test_libraries_log_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    logging.getLogger("uvicorn.error").warning("trouble %s", 1)
    logging.getLogger("uvicorn.access").info("GET / 200")
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("lib").exception("broke")
    first, second = lines(capsys)
    assert (first["event"], first["level"], first["logger"]) == ("trouble 1", "warning", "uvicorn.error")
    assert "ValueError: inside" in str(second["exception"])


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json", log_level="WARNING"))
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="console"))
    structlog.get_logger().info("hello", workflow="w")
    assert "hello" in capsys.readouterr().err


def test_colours_are_left_out_when_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for wish, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", wish)
        configure_logging(Settings(log_format="console"))
        structlog.get_logger().info("hello")
        assert ("\x1b[" in capsys.readouterr().err) is coloured


@pytest.mark.parametrize("form", ["console", "json"])
def test_tracebacks_show_no_values(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(Settings(log_format=form))

    def broken() -> None:
        inside = "sk_" + "secret"
        raise ValueError(len(inside))

    for logger in (structlog.get_logger(), logging.getLogger("lib")):
        try:
            broken()
        except ValueError:
            logger.exception("broke")
    printed = capsys.readouterr().err
    assert printed.count("ValueError") >= 2
    assert "sk_secret" not in printed


@pytest.mark.parametrize("settings", [Settings(log_level="loud"), Settings(log_format="xml")])
def test_bad_settings_are_named(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="MILLRACE_LOG_"):
        configure_logging(settings)

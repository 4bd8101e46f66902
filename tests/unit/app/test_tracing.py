"""Tracing is an extra: off unless it is installed and configured (app.observability.tracing)."""

from __future__ import annotations

import pytest

from app.observability import tracing

ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "installed", "wanted"),
    [
        (ON, True, True),
        (ON, False, False),
        ({}, True, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, True),
        (ON | {"OTEL_SDK_DISABLED": "true"}, True, False),
        (ON | {"OTEL_TRACES_EXPORTER": "none"}, True, False),
    ],
)
def test_when_it_is_on(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], installed: bool, wanted: bool) -> None:
    monkeypatch.setattr(tracing, "_installed", lambda _name: installed)
    assert tracing.tracing_wanted(environ) is wanted


def test_an_application_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "tracing_wanted", lambda: False)

    async def app(_scope, _receive, _send) -> None:
        pass

    assert tracing.traced(app, "x") is app

"""OpenTelemetry, as an extra: active only when it is installed (`millrace[otel]`) and configured (`OTEL_*`).

A span per HTTP request with the request's id; where to send spans, sampling and resource attributes are OpenTelemetry's
own environment variables.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from litestar.types import ASGIApp

from app.middleware.paths import SECRETS

_PACKAGES = ("opentelemetry.instrumentation.asgi", "opentelemetry.sdk", "opentelemetry.exporter.otlp")
_SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


def tracing_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment configures an exporter and the packages are there."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environ.get(name) for name in _SWITCHES) and all(_installed(name) for name in _PACKAGES)


def traced(app: ASGIApp, service: str) -> ASGIApp:
    """`app` with a span around every request, or `app` itself when tracing is not wanted."""
    if not tracing_wanted():
        return app
    instrumentation: Any = importlib.import_module("opentelemetry.instrumentation.asgi")
    _install_provider(service)
    spanned: ASGIApp = instrumentation.OpenTelemetryMiddleware(app, exclude_spans=["receive", "send"])

    async def without_secrets(scope: Any, receive: Any, send: Any) -> None:
        """Spans have the path: requests whose path is a secret get none."""
        await (app if SECRETS in scope.get("path", "") else spanned)(scope, receive, send)

    return without_secrets


def _install_provider(service: str) -> None:
    trace: Any = importlib.import_module("opentelemetry.trace")
    sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
    export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
    resources: Any = importlib.import_module("opentelemetry.sdk.resources")
    wire = "grpc" if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc" else "http"
    otlp: Any = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{wire}.trace_exporter")
    resource = resources.Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)})
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

"""Metrics of a process: the HTTP side, the event loop's lag, and the little server that shows them all.

The server is separate from the API so that metrics never leave through a public address and a worker has them, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.settings import Settings, SettingsError
from tenants.metrics import LOOP_LAG_MAX_SECONDS, LOOP_LAG_SECONDS

logger = structlog.get_logger(__name__)

LAG_INTERVAL_SECONDS = 0.25

HTTP_IN_FLIGHT = Gauge("millrace_http_requests_in_flight", "HTTP requests being answered.")
SOCKETS_OPEN = Gauge("millrace_websockets_open", "WebSockets that are open.")
SOCKETS_CLOSED = Counter("millrace_websockets_closed", "WebSockets that ended; 403: was not accepted.", ["code"])
_SOCKETS_MESSAGES = Counter("millrace_websocket_messages", "Messages of WebSockets.", ["direction"])
SOCKETS_MESSAGES = {direction: _SOCKETS_MESSAGES.labels(direction) for direction in ("in", "out")}
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BUCKET_NAMES = (*(str(bound) for bound in _BUCKETS), "+Inf")


class HttpMetrics(Collector):
    """Requests and their times by method, route and status, added up in plain lists of this process's event loop.

    Prometheus' own counters and histograms take a lock per bucket: ten times as much, and this runs for every request.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], list[float]] = {}

    def count(self, method: str, route: str, status: str, seconds: float) -> None:
        """One answered request. The arguments must come from small sets: each combination is a series."""
        series = self._series.get((method, route, status))
        if series is None:
            series = self._series[method, route, status] = [0.0] * (len(_BUCKETS) + 2)
        series[bisect_left(_BUCKETS, seconds)] += 1
        series[-1] += seconds

    def collect(self) -> Iterator[Metric]:
        """Called by the thread that serves the metrics; a figure may be one request behind another."""
        text = "Time from the first byte of a request to the last of its answer."
        times = HistogramMetricFamily("millrace_http_request_seconds", text, labels=["method", "route", "status"])
        for labels, series in list(self._series.items()):
            *counts, total = list(series)
            buckets = list(zip(_BUCKET_NAMES, itertools.accumulate(counts), strict=True))
            times.add_metric(list(labels), buckets, total)
        yield times


HTTP = HttpMetrics()
REGISTRY.register(HTTP)


@asynccontextmanager
async def observed(settings: Settings) -> AsyncIterator[str | None]:
    """Serve `/metrics` and measure the event loop for as long as the context is open; yields the metrics' address.

    None when `MILLRACE_METRICS_BIND` is empty. Raises :class:`SettingsError` when it cannot be bound.
    """
    watch = asyncio.create_task(_watch_loop(), name="loop-lag")
    try:
        with serve_metrics(settings.metrics_bind) as address:
            yield address
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


@contextlib.contextmanager
def serve_metrics(bind: str):
    """Serve the registry on `host:port` (port 0: a free one) from a thread of its own; yields `http://host:port/metrics`."""
    if not bind:
        yield None
        return
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"MILLRACE_METRICS_BIND must be host:port, not {bind!r}.")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), REGISTRY)
    except OSError as error:
        raise SettingsError(f"MILLRACE_METRICS_BIND: cannot listen on {bind}: {error.strerror}") from None
    address = f"http://{host}:{server.server_port}/metrics"
    logger.debug("metrics", address=address)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _watch_loop() -> None:
    """Sleep, and see by how much the loop overslept: what every other timer and answer of this process suffers."""
    worst = 0.0
    LOOP_LAG_MAX_SECONDS.set_function(lambda: worst)
    while True:
        before = time.perf_counter()
        await asyncio.sleep(LAG_INTERVAL_SECONDS)
        lag = max(0.0, time.perf_counter() - before - LAG_INTERVAL_SECONDS)
        LOOP_LAG_SECONDS.set(lag)
        # Decays instead of being reset by a scrape, so that several scrapers see the same figure.
        worst = max(lag, worst * 0.99)

"""The `call_api` action: one HTTP call, its answer as `{status, statusText, data}`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from instances.egress import EgressClient, EgressError, EgressRefused, EgressResponse
from instances.runtimes.document.failures import API_CALL_FAILED, ConfigError, rule
from instances.runtimes.protocol import Attempt, Failure, Raw, StepFailure
from versions.expressions import ExpressionError, decode_json, encode_json

REDACTED_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
MAX_CALL_SECONDS = 300.0
MAX_RETRY_AFTER_MS = 365 * 86_400_000


def redact_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Headers for a log line: the values of those that carry credentials replaced."""
    return {name: "[REDACTED]" if name.lower() in REDACTED_HEADERS else str(value) for name, value in headers.items()}


async def call_api(
    egress: EgressClient, config: dict[str, Any], attempt: Attempt, *, idempotency_key: str, lane: object
) -> Raw:
    """Make the call a rendered config describes. Raises :class:`StepFailure`; an answer outside `expect` keeps it."""
    method = _text(config, "method", "GET").upper()
    url = _with_query(_text(config, "url"), config.get("query"))
    headers = _headers(config.get("headers"))
    body, is_json = _body(config.get("body"))
    given = {name.lower() for name, _ in headers}
    if body and is_json and "content-type" not in given:
        headers.append(("Content-Type", "application/json"))
    if "idempotency-key" not in given:
        headers.append(("Idempotency-Key", quote(idempotency_key, safe=":/ !#$&'()*+,;=?@[]~")))
    attempt.log("debug", f"{method} {url.partition('?')[0]} {encode_json(redact_headers(dict(headers)))}")
    try:
        response = await egress.request(method, url, headers=headers, body=body, timeout=MAX_CALL_SECONDS, lane=lane)
    except EgressError as error:
        message = f"API call failed: {error}"
        raise StepFailure(rule(API_CALL_FAILED, message, permanent=isinstance(error, EgressRefused))) from error
    output = _answer(response, method)
    if not _expected(response.status, config.get("expect")):
        raise StepFailure(
            Failure(
                API_CALL_FAILED,
                f"API call failed: {response.status}",
                API_CALL_FAILED,
                retry_after=_retry_after(response, attempt.now()),
                output=output,
            )
        )
    return output


def _text(config: dict[str, Any], key: str, default: str | None = None) -> str:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, str) or not value:
        raise ConfigError(f"config/{key} must be a text")
    return value


def _with_query(url: str, query: Any) -> str:
    if query is None:
        return url
    if not isinstance(query, dict):
        raise ConfigError("config/query must be an object")
    pairs = [
        (name, _scalar(value, f"query/{name}"))
        for name, values in query.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]
    if not pairs:
        return url
    base, hash, fragment = url.partition("#")
    try:
        encoded = urlencode(pairs)
    except UnicodeEncodeError:
        raise ConfigError("config/query must hold no lone surrogates") from None
    return f"{base}{'&' if '?' in base else '?'}{encoded}{hash}{fragment}"


def _scalar(value: Any, where: str) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise ConfigError(f"config/{where} must be a text, a number or a boolean")
    return value if isinstance(value, str) else encode_json(value)


def _headers(headers: Any) -> list[tuple[str, str]]:
    if headers is None:
        return []
    if not isinstance(headers, dict):
        raise ConfigError("config/headers must be an object")
    return [(name, _scalar(value, f"headers/{name}")) for name, value in headers.items() if value is not None]


def _body(body: Any) -> tuple[bytes, bool]:
    """What is sent: a text as it is, anything else as JSON."""
    if body is None:
        return b"", False
    text = body if isinstance(body, str) else encode_json(body)
    return text.encode("utf-8", "replace"), True


def _expected(status: int, expect: Any) -> bool:
    if expect is None:
        return 200 <= status <= 299
    if not isinstance(expect, list):
        raise ConfigError("config/expect must be an array of statuses")
    return status in expect


def _answer(response: EgressResponse, method: str) -> Raw:
    data = "null" if method == "HEAD" or not response.body else _data(response)
    return f'{{"status":{response.status},"statusText":{encode_json(response.reason)},"data":{data}}}'


def _data(response: EgressResponse) -> Raw:
    """The body as JSON text: itself when the answer says JSON and is, else as a string."""
    kind, _, parameters = (response.header("content-type") or "").lower().partition(";")
    kind = kind.strip()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            text = response.body.decode("utf-8-sig").strip()
            decode_json(text)
            return text
        except (UnicodeDecodeError, ExpressionError):
            return encode_json(response.body.decode("utf-8", "replace"))
    return encode_json(response.body.decode(_charset(parameters), "replace"))


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') in ("iso-8859-1", "latin-1", "latin1", "windows-1252", "us-ascii"):
            return "cp1252" if value.strip('"') == "windows-1252" else "latin-1"
    return "utf-8"


def _retry_after(response: EgressResponse, now: datetime) -> int | None:
    """Milliseconds the server asked to wait, given as seconds or as a date."""
    text = response.header("retry-after")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        milliseconds = int(text) * 1000
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        milliseconds = int((moment - now).total_seconds() * 1000)
    return min(max(milliseconds, 0), MAX_RETRY_AFTER_MS)

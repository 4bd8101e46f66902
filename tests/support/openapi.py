"""Holds answers to the contract: `check(response)` fails unless `openapi.yaml` documents what came.

Status, content type, headers and body are compared; the operation is found by method and path, so a test needs nothing
but the response.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from app.contract import contract
from app.faces.registry import face_of
from app.middleware.paths import PREFIX

METHODS = ("get", "put", "post", "patch", "delete")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_VERSION = re.compile(r"^/api/v[12]/")
"""Versions of the orchestration face: the contract names its paths once, without."""
_FORMATS = FormatChecker(("uuid",))


@_FORMATS.checks("date-time", raises=ValueError)
def _is_our_time(value: object) -> bool:
    """Every time this platform sends has this one spelling."""
    return not isinstance(value, str) or (bool(_TIME.fullmatch(value)) and bool(datetime.fromisoformat(value)))


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation of the contract by upper-case method and path template."""
    return {
        (method.upper(), path): item[method]
        for path, item in contract()["paths"].items()
        for method in METHODS
        if method in item
    }


def operations_of(face: str | None) -> dict[tuple[str, str], dict[str, Any]]:
    """The operations of one face by its name; None: of the Cloudflare face and the service itself."""
    return {
        (method, path): operation
        for (method, path), operation in operations().items()
        if getattr(face_of(path), "name", None) == face
    }


def check(response: httpx.Response) -> None:
    """Raise :class:`AssertionError` saying how `response` breaks the contract."""
    request = response.request
    template, operation = find(request.method, request.url.raw_path.split(b"?")[0].decode())
    where = f"{request.method} {template} -> {response.status_code}"
    answers = operation["responses"]
    documented = answers.get(str(response.status_code))
    assert documented is not None, f"{where}: status is not documented ({', '.join(answers)})"
    documented = _resolve(documented)
    assert response.headers.get("x-request-id"), f"{where}: no X-Request-Id"
    if "content" not in documented:
        assert not response.content, f"{where}: a body is not documented"
        return
    kind = response.headers.get("content-type", "").partition(";")[0]
    assert kind in documented["content"] or "*/*" in documented["content"], (
        f"{where}: {kind} is not documented ({', '.join(documented['content'])})"
    )
    if kind == "application/json" or kind.endswith("+json"):
        validate(documented["content"][kind]["schema"], response.json(), where)


def validate(schema: dict[str, Any], value: Any, where: str) -> None:
    """Hold `value` to a schema of the contract."""
    validator = Draft202012Validator({**schema, "components": contract()["components"]}, format_checker=_FORMATS)
    problems = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]
    assert not problems, f"{where}: " + "; ".join(problems[:5])


def find(method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The operation a request was for: literal segments win over parameters, an instance id may hold slashes."""
    inside = _VERSION.sub("/api/", path.removeprefix(PREFIX)).rstrip("/")
    verb = "get" if method == "HEAD" else method.lower()
    for template, pattern in _patterns():
        operation = contract()["paths"][template].get(verb)
        if operation is not None and pattern.fullmatch(inside):
            return template, operation
    raise AssertionError(f"{method} {path} is not in the contract")


@functools.cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    def pattern(template: str) -> re.Pattern[str]:
        text = template.replace("{instance_id}", "(.+)")
        return re.compile(re.sub(r"\{\w+\}", "[^/]+", text))

    return [(path, pattern(path)) for path in sorted(contract()["paths"], key=_generality)]


def _generality(template: str) -> tuple[int, int, str]:
    return ("{instance_id}" in template, template.count("{") - template.count("/"), template)


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    found: Any = contract()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found

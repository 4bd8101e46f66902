"""`openapi.yaml` says what there is: every route, and nothing else (app.contract)."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator
from litestar.routes import HTTPRoute

from app.contract import contract
from app.main import create_app
from app.middleware.paths import PREFIX
from app.settings import Settings
from tests.support.openapi import operations, validate

# A route that only refuses the reserved name `settings`, which the contract's {workflow_name} covers.
COVERED = {("PUT", "/accounts/{account_id}/workflows/settings")}


def routes(settings: Settings) -> set[tuple[str, str]]:
    """Every (method, path template) the application serves, as the contract spells them."""
    return {
        (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path.removeprefix(PREFIX)))
        for route in create_app(settings).routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS" and not re.match("/api/v[12]/", route.path)  # the same routes again
    }


def test_the_contract_and_the_routes_are_the_same(settings: Settings) -> None:
    assert set(operations()) == routes(settings) - COVERED


def test_everything_referenced_exists_and_is_used() -> None:
    text = str(contract())
    referenced = set(re.findall(r"#/components/(\w+)/([\w-]+)", text))
    defined = {
        (kind, name)
        for kind in ("schemas", "parameters", "responses", "headers")
        for name in contract()["components"][kind]
    }
    assert referenced == defined


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in operations().values()]
    assert len(ids) == len(set(ids))


def test_path_parameters_are_declared() -> None:
    shared = contract()["components"]["parameters"]
    for path, item in contract()["paths"].items():
        declared = {shared[each["$ref"].rpartition("/")[2]]["name"] for each in item.get("parameters", [])}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), path


def test_schemas_are_schemas_and_examples_fit() -> None:
    for name, schema in contract()["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", []):
            validate(schema, example, name)


@pytest.mark.parametrize("operation", operations().items(), ids=lambda item: item[1]["operationId"])
def test_every_operation_documents_its_errors(operation: tuple[tuple[str, str], dict[str, Any]]) -> None:
    (_, path), described = operation
    statuses = set(described["responses"])
    assert {"405", "500"} <= statuses
    if path == "/hooks/{token}":  # whoever has the URL may call it
        assert {"400", "404", "429", "503"} <= statuses
    elif path not in ("/healthz", "/readyz", "/openapi.yaml", "/openapi.json"):
        assert {"400", "401", "403", "404", "503"} <= statuses
    if "requestBody" in described:
        assert "413" in statuses


async def test_it_is_served_without_credentials(http: httpx.AsyncClient) -> None:
    as_json = await http.get("/openapi.json")
    as_yaml = await http.get("/openapi.yaml")
    assert as_json.headers["content-type"] == "application/json"
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert as_json.json() == yaml.safe_load(as_yaml.text) == contract()

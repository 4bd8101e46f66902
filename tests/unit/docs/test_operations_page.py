"""`docs/operations.md` against the settings, the metrics and the options it describes."""

from __future__ import annotations

import dataclasses
import re

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase

import app.observability.metrics
import jobs.metrics
import tenants.metrics
from app.cli.dev import dev
from app.settings import Settings
from tests.support.docs import page

TEXT = page("operations.md")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
SETTINGS = {row[0].strip("`"): row[1] for row in ROWS if row[0].startswith("`MILLRACE_") and len(row) == 3}
METRICS = {
    f"{value._name}_total" if value._type == "counter" else value._name: ",".join(value._labelnames)
    for module in (app.observability.metrics, jobs.metrics, tenants.metrics)
    for value in vars(module).values()
    if isinstance(value, MetricWrapperBase)
} | {family.name: ",".join(vars(family)["_labelnames"]) for family in app.observability.metrics.HTTP.collect()}
"""Labels by the name Prometheus sees."""


def test_every_setting_is_described() -> None:
    assert SETTINGS.keys() == {f"MILLRACE_{field.name.upper()}" for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_defaults_are_right(field: dataclasses.Field[object]) -> None:
    if field.name == "data_dir":
        return  # its default depends on where one is
    shown = SETTINGS[f"MILLRACE_{field.name.upper()}"].strip("`")
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    assert shown == ("" if field.default in ("", ()) else default)


def test_every_metric_is_described_and_no_other() -> None:
    described = set(re.findall(r"`(millrace_[a-z_]+)", TEXT))
    assert described - {"millrace_api", "millrace_engine"} == METRICS.keys()


def test_labels_are_right() -> None:
    for row in ROWS:
        for name, shown in re.findall(r"`(millrace_[a-z_]+)(?:\{([a-z,]+)\})?`", row[0]):
            assert METRICS[name] == shown, name


def test_options_of_dev_are_named() -> None:
    options = {name for option in dev.params if isinstance(option, click.Option) for name in option.opts}
    assert options - set(re.findall(r"`(--[a-z-]+)`", TEXT)) == set()

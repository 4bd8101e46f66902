"""Settings out of environment variables."""

from typing import get_type_hints

import pytest

from app.cli.config import field_descriptions
from app.settings import _LEAST, Settings, SettingsError, load_settings


def test_lists_are_separated_by_commas():
    settings = load_settings({"MILLRACE_EGRESS_ALLOW": " 10.0.0.0/8, billing.internal ,,"})
    assert settings.egress_allow == ("10.0.0.0/8", "billing.internal")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), (" TRUE ", True), ("false", False), ("0", False), ("", False)]
)
def test_switches(text, value):
    assert load_settings({"MILLRACE_EGRESS_PLAIN_HTTP": text}).egress_plain_http is value


def test_words_are_one_of_several():
    assert load_settings({"MILLRACE_GRAPHQL_INTROSPECTION": "public"}).graphql_introspection == "public"
    with pytest.raises(SettingsError, match="must be one of authenticated, public, off, not 'everybody'"):
        load_settings({"MILLRACE_GRAPHQL_INTROSPECTION": "everybody"})


@pytest.mark.parametrize("text", ["yes", "on", "2", "tru"])
def test_what_is_no_switch(text):
    with pytest.raises(SettingsError, match="MILLRACE_EGRESS_PLAIN_HTTP must be true or false, not"):
        load_settings({"MILLRACE_EGRESS_PLAIN_HTTP": text})


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("WORKER_SLOTS", "many", "a whole number from 1 to 1000000, not 'many'"),
        ("WORKER_SLOTS", "0", "a whole number from 1"),
        ("WORKER_SLOTS", "1.5", "a whole number from 1"),
        ("WORKER_SLOTS", "1000001", "a whole number from 1"),
        ("DB_POOL_SIZE", "-1", "a whole number from 1"),
        ("SANDBOXES", "0", "a whole number from 1"),
        ("LEASE_SECONDS", "1.9", "a number from 2.0"),
        ("LEASE_SECONDS", "nan", "a number from 2.0"),
        ("DRAIN_SECONDS", "-0.1", "a number from 0.0"),
        ("DRAIN_SECONDS", "inf", "a number from 0.0"),
    ],
)
def test_what_is_no_number(name, text, rule):
    with pytest.raises(SettingsError, match=f"MILLRACE_{name} must be {rule}"):
        load_settings({f"MILLRACE_{name}": text})


def test_numbers_at_the_boundary():
    found = load_settings({"MILLRACE_WORKER_SLOTS": "1", "MILLRACE_LEASE_SECONDS": "2", "MILLRACE_DRAIN_SECONDS": "0"})
    assert (found.worker_slots, found.lease_seconds, found.drain_seconds) == (1, 2.0, 0.0)


def test_an_empty_number_is_none():
    """As compose files pass on what is not set."""
    assert load_settings({"MILLRACE_DB_POOL_SIZE": ""}) == Settings()


def test_a_secret_need_not_be_utf8():
    settings = load_settings({"MILLRACE_SECRET": "\udcff" * 32, "MILLRACE_SECRET_PREVIOUS": "\udcfe" * 32})
    assert (settings.require_secret(), settings.previous_secret()) == (b"\xff" * 32, b"\xfe" * 32)


def test_every_number_has_a_least_value():
    assert {name for name, kind in get_type_hints(Settings).items() if kind in (int, float)} == _LEAST.keys()


def test_every_setting_says_what_it_is_for():
    assert field_descriptions().keys() == Settings.__dataclass_fields__.keys()

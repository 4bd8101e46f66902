"""Settings out of environment variables."""

import pytest

from app.settings import SettingsError, load_settings


def test_lists_are_separated_by_commas():
    settings = load_settings({"MILLRACE_EGRESS_ALLOW": " 10.0.0.0/8, billing.internal ,,"})
    assert settings.egress_allow == ("10.0.0.0/8", "billing.internal")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), (" TRUE ", True), ("false", False), ("0", False), ("", False)]
)
def test_switches(text, value):
    assert load_settings({"MILLRACE_EGRESS_PLAIN_HTTP": text}).egress_plain_http is value


@pytest.mark.parametrize("text", ["yes", "on", "2", "tru"])
def test_what_is_no_switch(text):
    with pytest.raises(SettingsError, match="MILLRACE_EGRESS_PLAIN_HTTP must be true or false, not"):
        load_settings({"MILLRACE_EGRESS_PLAIN_HTTP": text})


def test_what_is_no_number():
    with pytest.raises(SettingsError, match="MILLRACE_WORKER_SLOTS must be a number, not 'many'"):
        load_settings({"MILLRACE_WORKER_SLOTS": "many"})

"""`docs/api-cloudflare.md` against the errors there are and the routes of the contract."""

from __future__ import annotations

import importlib
import re

import pytest

from app.errors import MillraceError
from tenants.auth import SCOPES
from tests.support.docs import page

for _package in ("tenants", "versions", "instances"):
    importlib.import_module(f"{_package}.errors")

TEXT = page("api-cloudflare.md")
ROWS = {
    int(cells[0]): cells[1:]
    for line in TEXT.splitlines()
    if line.startswith("| 1") or line.startswith("| 7") or line.startswith("| 9")
    if (cells := [cell.strip() for cell in line.strip("|").split("|")]) and cells[0].isdigit()
}


def below(kind: type[MillraceError]) -> set[type[MillraceError]]:
    return set().union(*({each} | below(each) for each in kind.__subclasses__()))


def errors() -> set[type[MillraceError]]:
    """Every error callers can get; those that begin with `_` are bases of others, or of tests. Other faces' own are not
    this one's."""
    return {
        error
        for error in below(MillraceError)
        if not error.__name__.startswith("_") and not error.__module__.startswith("app.faces.")
    }


@pytest.mark.parametrize("error", sorted(errors(), key=lambda each: each.__qualname__), ids=lambda each: each.__name__)
def test_every_error_is_described(error: type[MillraceError]) -> None:
    assert error.code in ROWS, f"{error.__name__} has code {error.code}"
    status, key, *_ = ROWS[error.code]
    assert str(error.status) in status or "200" in status
    if key:
        described = re.findall(r"`([a-z_.-]+)`", key)
        assert error.key in described or error.__mro__[1] is not MillraceError


def test_no_other_error_is_described() -> None:
    known = {error.code for error in errors()}
    assert set(ROWS) <= known | {10471}


def test_every_scope_is_named_and_no_other() -> None:
    table = TEXT.split("| scope | allows |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([a-z]+:[a-z]+|admin)`", table))
    assert named == SCOPES

"""docs/architecture.md names every package there is, and nothing that is not there."""

from __future__ import annotations

import re

import pytest

from tests.support.docs import DOCS, ROOT

PACKAGES = ("app", "tenants", "versions", "instances", "jobs")
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
NAMED = set(re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w/.]+)`", PAGE))
OF_A_WHOLE = ("piccolo_migrations", "store", "child")
"""Folders that packages have as others have a file, or that are their other half."""


def _packages() -> list[str]:
    found = (path.parent.relative_to(ROOT) for top in PACKAGES for path in (ROOT / top).rglob("__init__.py"))
    return sorted(str(path) for path in found if path.parent.name and path.name not in OF_A_WHOLE)


@pytest.mark.parametrize("package", _packages())
def test_every_package_is_on_the_map(package: str) -> None:
    assert package in NAMED


@pytest.mark.parametrize("path", sorted(NAMED))
def test_what_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_section_is_in_the_table_of_contents() -> None:
    sections = re.findall(r"^## (.+)$", PAGE, re.M)
    assert re.findall(r"^- \[(.+)\]\(#.+\)$", PAGE, re.M) == sections

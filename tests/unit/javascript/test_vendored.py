"""What is not ours is what its README says it is."""

from __future__ import annotations

import hashlib

from tests.support.javascript_engine import CHILD


def test_the_streams_are_the_package_they_are_said_to_be() -> None:
    _, _, text = (CHILD / "web/ponyfill.js").read_text().partition("\n")
    text = text.rpartition("\n};\n")[0]
    readme = (CHILD / "web/README.md").read_text()
    assert hashlib.sha256(text.encode()).hexdigest() in readme

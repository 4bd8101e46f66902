"""Any instance id survives any spelling of its path, and no bytes in a path do more than be refused."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import NoRoute
from app.middleware.paths import INSTANCE_ID, canonicalise

BASE = "/client/v4/accounts/0123456789abcdef0123456789abcdef/workflows/w/instances/"
ADDRESSABLE = st.text("abcXYZ019, */#_-", min_size=1, max_size=40)
LITERALS = {"batch", "batch/terminate", "batch/delete", "terminate"}


def canonical(raw: bytes) -> tuple[str, str | None]:
    scope = {"path": "", "raw_path": raw}
    canonicalise(scope)
    return scope["path"], scope.get(INSTANCE_ID)


@given(ADDRESSABLE, st.sampled_from(["", "/status", "/step", "/logs", "/events/go"]))
@example("*/30 * * * *-1786001400000", "/status")
@settings(max_examples=500)
def test_a_fully_encoded_id_comes_back(instance_id: str, suffix: str) -> None:
    path, found = canonical((BASE + quote(instance_id, safe="") + suffix).encode())
    if instance_id in LITERALS and "/" not in instance_id and not suffix:
        assert found is None
    else:
        assert found == instance_id
        assert path == BASE + "-" + suffix


@given(ADDRESSABLE.filter(lambda text: not text.startswith("/") and not text.endswith("/")))
@settings(max_examples=500)
def test_an_id_with_raw_slashes_comes_back(instance_id: str) -> None:
    _, found = canonical((BASE + quote(instance_id, safe="/*,") + "/status").encode())
    assert found == instance_id


@given(st.binary(max_size=60))
@settings(max_examples=1000)
def test_any_bytes_are_routed_or_refused(tail: bytes) -> None:
    for prefix in (b"/", b"/client/v4/", b"/client/v4/accounts/", BASE.encode()):
        try:
            path, instance_id = canonical(prefix + tail)
        except NoRoute:
            continue
        for text in (path, instance_id or ""):
            assert not any(character < " " or character == "\x7f" for character in text)
            text.encode()

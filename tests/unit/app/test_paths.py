"""Paths are decided on their raw spelling (app.middleware.paths)."""

import pytest

from app.errors import NoRoute
from app.middleware.paths import INSTANCE_ID, canonicalise, shown

A = "/accounts/0123456789abcdef0123456789abcdef"


def canonical(raw: str | bytes) -> tuple[str, str | None]:
    raw = raw.encode() if isinstance(raw, str) else raw
    scope = {"path": "decoded by the server, must not matter", "raw_path": raw}
    canonicalise(scope)
    return scope["path"], scope.get(INSTANCE_ID)


@pytest.mark.parametrize("prefix", ["", "/client/v4"])
@pytest.mark.parametrize(
    "path",
    [
        A,
        f"{A}/workflows",
        f"{A}/workflows/settings",
        f"{A}/workflows/orders/instances",
        f"{A}/workflows/orders/instances/",
        f"{A}/workflows/orders/instances/batch",
        f"{A}/workflows/orders/instances/batch/terminate",
        f"{A}/workflows/orders/instances/batch/delete",
        f"{A}/workflows/orders/instances/terminate",
        f"{A}/workflows/orders/versions/1/graph",
        "/user/tokens/verify",
        "/memberships",
        "/accounts",
    ],
)
def test_both_prefixes_become_one_and_literals_stay(prefix: str, path: str) -> None:
    assert canonical(prefix + path) == ("/client/v4" + path, None)


CRON = "*/30 * * * *-1786001400000"


@pytest.mark.parametrize(
    ("remainder", "instance_id", "suffix"),
    [
        ("i1", "i1", ""),
        ("i1/", "i1", ""),
        ("i1/status", "i1", "/status"),
        ("i1/step", "i1", "/step"),
        ("i1/logs", "i1", "/logs"),
        ("i1/events/go", "i1", "/events/go"),
        ("i1/events/go/", "i1", "/events/go"),
        ("i1/events", "i1/events", ""),
        ("-", "-", ""),
        ("status", "status", ""),
        # as wrangler sends it: spaces encoded, the rest as it is
        ("*/30%20*%20*%20*%20*-1786001400000", CRON, ""),
        ("*/30%20*%20*%20*%20*-1786001400000/status", CRON, "/status"),
        ("*/30%20*%20*%20*%20*-1786001400000/events/go-1", CRON, "/events/go-1"),
        # as the SDKs send it: everything encoded
        ("%2A%2F30%20%2A%20%2A%20%2A%20%2A-1786001400000", CRON, ""),
        ("%2A%2F30%20%2A%20%2A%20%2A%20%2A-1786001400000/step", CRON, "/step"),
        ("0%204%20L%20*%20MON%231-1", "0 4 L * MON#1-1", ""),
        ("a%2Fstatus", "a/status", ""),
        ("a//b", "a//b", ""),
        ("a/b/status/status", "a/b/status", "/status"),
        ("%C3%A9", "é", ""),
        ("%25zz", "%zz", ""),
    ],
)
def test_an_instance_id_is_a_remainder(remainder: str, instance_id: str, suffix: str) -> None:
    path, found = canonical(f"/client/v4{A}/workflows/orders/instances/{remainder}")
    assert found == instance_id
    assert path == f"/client/v4{A}/workflows/orders/instances/-{suffix}"


@pytest.mark.parametrize(
    "raw",
    [
        f"{A}/workflows/a%2Fb",
        f"{A}%2Fworkflows",
        f"{A}/workflows/a%00b",
        f"{A}/workflows/a%0Ab/instances",
        f"{A}/workflows/%zz",
        f"{A}/workflows/%",
        f"{A}/workflows/%ff",
        f"{A}//workflows",
        f"{A}/workflows/w/instances/i%00",
        f"{A}/workflows/w/instances/i%ff%fe",
        f"{A}/workflows/w/instances/i%7f",
        f"{A}/workflows/w/instances/i%z1/status",
        f"{A}/workflows/w/instances/i/events/a%2Fb",
        f"{A}/workflows/w/instances/%ED%A0%80",
        b"/client/v4/accounts/\xff\xfe",
        b"/accounts/\x00",
        "/somewhere%2Felse",
        "/somewhere/%ff",
        "//client/v4/accounts",
    ],
)
def test_a_path_that_can_name_nothing_is_refused(raw: str | bytes) -> None:
    with pytest.raises(NoRoute):
        canonical(raw)


@pytest.mark.parametrize("raw", ["/healthz", "/client/v5/accounts", "/accountsx", "/client", "/v1/executions/a", "/"])
def test_other_paths_are_left_alone(raw: str) -> None:
    assert canonical(raw) == (raw, None)


def test_encoded_segments_are_decoded() -> None:
    assert canonical(f"{A}/workflows/my%20flow/versions") == (f"/client/v4{A}/workflows/my flow/versions", None)


def test_the_query_is_no_part_of_it() -> None:
    assert canonical("/accounts?page=1")[0] == "/client/v4/accounts"


@pytest.mark.parametrize(
    "path", ["/hooks/T", "/hooks//T", "//hooks/T", "/%68ooks/T", "/millrace/hooks/T", "/hooks/T/x"]
)
def test_no_log_has_the_secret_in_the_url_of_a_webhook(path: str):
    assert "T" not in shown(path).removesuffix("[REDACTED]")


def test_logs_have_other_paths_as_they_are():
    path = f"{A}/workflows/a%20b/hooks"
    assert shown(path) == path

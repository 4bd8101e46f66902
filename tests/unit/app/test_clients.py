"""The client's address behind proxies (app.middleware.clients)."""

import pytest

from app.middleware.clients import Proxies


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ([], "10.0.0.1", b"1.2.3.4", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        (["10.0.0.0/8"], "10.0.0.1", None, "10.0.0.1"),
        (["10.0.0.0/8"], "9.9.9.9", b"1.2.3.4", "9.9.9.9"),
        (["10.0.0.0/8"], "10.0.0.1", b"6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
        (["10.0.0.0/8"], "10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (["10.0.0.0/8"], "10.0.0.1", b"nonsense", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", b"nonsense, 10.0.0.2", "10.0.0.2"),
        (["10.0.0.0/8"], "10.0.0.1", b"1.2.3.4:5555", "1.2.3.4"),
        (["10.0.0.0/8"], "10.0.0.1", b"[2001:db8::1]:5555", "2001:db8::1"),
        (["10.0.0.0/8"], "10.0.0.1", b"2001:db8::1", "2001:db8::1"),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        (["10.0.0.0/8"], "", b"1.2.3.4", "1.2.3.4"),
        (["10.0.0.0/8"], "testclient", b"1.2.3.4", "testclient"),
    ],
)
def test_only_trusted_proxies_are_believed(trusted: list[str], peer: str, forwarded: bytes | None, client: str) -> None:
    assert Proxies(trusted).client_of(peer, forwarded) == client


def test_a_bad_network_is_refused() -> None:
    with pytest.raises(ValueError):
        Proxies(["not a network"])

"""Whatever a caller asks for, what is sent is one request of theirs to a public address, or nothing."""

import contextlib
import ipaddress
from string import ascii_letters

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instances.egress import EgressPolicy, EgressRefused
from instances.egress.messages import checked_call
from instances.egress.policy import is_public, literal, unmapped

POLICY = EgressPolicy(plain_http=True)

HOSTS = st.one_of(
    st.ip_addresses().map(lambda address: f"[{address}]" if address.version == 6 else str(address)),
    st.integers(0, 2**32).map(str),
    st.integers(0, 2**32).map(hex),
    st.lists(st.integers(0, 300), min_size=1, max_size=5).map(lambda parts: ".".join(map(str, parts))),
    st.lists(st.integers(0, 300), min_size=1, max_size=5).map(lambda parts: ".".join(map(oct, parts)).replace("o", "")),
    st.text(ascii_letters + "-_.%0123456789", max_size=20),
    st.text(max_size=10),
)
PIECES = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(["@", ":", "/", "\\", "?", "#", "//", "\t", "\r\n", "%00", ":80", "[", "]"]),
    ),
    max_size=5,
).map("".join)
URLS = st.builds("{}{}{}{}".format, st.sampled_from(["https://", "http://", "HTTPS:", "//", ""]), PIECES, HOSTS, PIECES)
TEXTS = st.one_of(st.text(max_size=12), st.text("\r\n\t :aZ\0\x7f\xe9", max_size=12))


@settings(max_examples=500)
@given(
    url=st.one_of(URLS, st.builds("https://example.com{}".format, PIECES)),
    method=st.one_of(st.sampled_from(["GET", "POST", "put", "HEAD", "PROPFIND"]), TEXTS),
    headers=st.lists(
        st.tuples(st.one_of(st.sampled_from(["X-A", "host", "Content-Length", "TE"]), TEXTS), TEXTS), max_size=4
    ),
    body=st.binary(max_size=20),
)
@example(url="https://example.com/", method="GET", headers=[("X-A", "\xa0\xff\t")], body=b"")
def test_what_is_sent_is_one_request_or_nothing(url, method, headers, body):
    try:
        call = checked_call(POLICY, method, url, headers, body, 100)
    except EgressRefused as refused:
        assert str(refused)
        return
    server, client = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    events = [call.request(), *([h11.Data(data=call.body)] if call.body else []), h11.EndOfMessage()]
    server.receive_data(b"".join(client.send(event) or b"" for event in events))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    received = b""
    while type(event := server.next_event()) is h11.Data:
        received += bytes(event.data)
    assert type(event) is h11.EndOfMessage
    assert server.trailing_data == (b"", False)
    assert (request.method, received) == (method.upper().encode(), body)
    names = [name.decode() for name, _ in request.headers]
    assert names.count("host") == 1
    assert names.count("content-length") <= 1
    assert "te" not in names
    sent = [value for name, value in request.headers if name == b"x-a"]
    assert sent == [value.strip(" \t").encode("latin-1") for name, value in headers if name.lower() == "x-a"]


@settings(max_examples=500)
@given(url=URLS)
def test_a_url_with_an_address_that_passes_leads_to_a_public_one(url):
    with contextlib.suppress(EgressRefused):
        target = POLICY.check_url(url)
        address = literal(target.host)
        if address is not None:
            assert is_public(address)
        assert target.scheme in ("http", "https")
        assert 0 < target.port < 65_536
        assert not target.url.userinfo


@settings(max_examples=500)
@given(st.ip_addresses(v=6), st.ip_addresses(v=4))
def test_no_ipv4_address_hides_in_an_ipv6_one(six, four):
    """Whatever carries a private IPv4 address in a way the internet knows is as private as that."""
    carriers = {
        ipaddress.IPv6Address(int(prefix) + (int(four) << shift))
        for prefix, shift in (
            (ipaddress.IPv6Address("::"), 0),
            (ipaddress.IPv6Address("::ffff:0:0"), 0),
            (ipaddress.IPv6Address("64:ff9b::"), 0),
            (ipaddress.IPv6Address("2002::"), 80),
        )
    }
    for carrier in carriers:
        parsed = unmapped(str(carrier))
        assert parsed is not None
        assert not is_public(parsed) or parsed == four
    if is_public(six):
        assert six in ipaddress.ip_network("2000::/3")
        assert six.sixtofour is None
        assert six.teredo is None

"""No spelling of an inside address gets a call out, at write time or at connect time."""

import asyncio
import socket

import pytest

from app.settings import Settings
from instances.egress import EgressClient, EgressFailed, EgressPolicy, EgressRefused
from instances.egress_policy import is_public, literal, unmapped

INSIDE_LITERALS = [
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "0", "0.0.0.0", "2130706433", "017700000001", "0x7f000001",
    "0x7f.1", "0177.0.0.1", "127.0.0.1.", "10.0.0.1", "10.1", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "169.254.169.254", "169.254.170.2", "2852039166", "0xA9FEA9FE", "100.64.0.1", "100.100.100.200", "192.0.0.1",
    "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "1.2.3.4.5", "256.1.1.1", "0x", "999999999999",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]",
    "[::127.0.0.1]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[ff02::1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:808:808::1]",
    "[2001::1]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[100::1]", "[2001:20::1]",
    "[::ffff:0:127.0.0.1]",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE_LITERALS)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_inside_addresses_are_refused_when_written(host, scheme):
    policy = EgressPolicy(plain_http=True)
    assert policy.problem(f"{scheme}://{host}/") is not None
    assert policy.problem(f"{scheme}://{host}:8443/x?y#z") is not None


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_pass(address):
    parsed = unmapped(address)
    assert parsed is not None
    assert is_public(parsed)
    assert EgressPolicy().problem(f"https://{f'[{address}]' if ':' in address else address}/") is None


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com", "//example.com", "/path", "ftp://example.com", "file:///etc/passwd", "gopher://127.0.0.1",
        "unix:///run/x.sock", "http://example.com", "https://", "https:///x", "https://user@example.com",
        "https://user:pw@example.com", "https://example.com\\@127.0.0.1", "https://example.com@127.0.0.1",
        "https://exa mple.com", "https://example.com:0x50", "https://example.com:99999", "https://example.com:22",
        "https://example.com:5432", "https://example.com:6379", "https://example.com:11211", "https://exa\nmple.com",
        "https://localhost/", "https://a.LOCALHOST.:8443/",
        "https://[::1", "https://[zz]", "https://" + "a" * 9000, "javascript:alert(1)", "https://\u2488.example",
    ],
)  # fmt: skip
def test_urls_that_are_not_called(url):
    assert EgressPolicy().problem(url) is not None


@pytest.mark.parametrize(
    "url",
    ["https://example.com", "https://example.com:443/a?b", "https://example.com:8443", "https://bücher.example/ä",
     "https://EXAMPLE.com./", "https://1e100.net", "https://0xdead.example.com"],
)  # fmt: skip
def test_urls_that_may_be_called(url):
    assert EgressPolicy().problem(url) is None


def test_fullwidth_digits_are_read_as_the_address_they_become():
    assert EgressPolicy().problem("https://127\u30020\u30020\u30021/") is not None
    assert EgressPolicy().problem("https://１２７.0.0.1/") is not None


def test_numeric_hosts_are_read_as_a_resolver_reads_them():
    assert str(literal("2130706433")) == "127.0.0.1"
    assert str(literal("0x7f.1")) == "127.0.0.1"
    assert str(literal("::ffff:10.0.0.1")) == "10.0.0.1"
    assert literal("example.com") is None


# --- at connect time ---------------------------------------------------------------------------------------------


class Answers:
    """A resolver that gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def dialled(monkeypatch):
    """Addresses connections were really opened to; none succeeds."""
    import httpcore

    seen = []

    async def connect_tcp(self, host, port, *_args, **_kwargs):
        seen.append((host, port))
        raise httpcore.ConnectError("not in this test")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    return seen


async def call(url, resolver, **policy):
    client = EgressClient(EgressPolicy(**policy), resolver=resolver)
    try:
        return await client.request("GET", url)
    finally:
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"],
        ["fe80::1%eth0"], ["fe80::1"], ["2002:7f00:1::"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"],
        ["2606:4700::1111", "fd00::1"], ["not an address"], ["0.0.0.0"],
    ],
)  # fmt: skip
async def test_a_name_with_one_inside_address_is_refused(dialled, answer):
    with pytest.raises(EgressRefused) as caught:
        await call("https://innocent.example/", Answers(answer))
    assert dialled == []
    assert str(caught.value) == "calls to this address are not allowed"


async def test_rebinding_is_pointless(dialled):
    """The name answers with a public address first and with an inside one afterwards."""
    resolver = Answers(["93.184.216.34"], ["127.0.0.1"])
    with pytest.raises(EgressFailed):
        await call("https://rebind.example/", resolver)
    assert resolver.asked == ["rebind.example"], "one connection resolves once"
    assert dialled == [("93.184.216.34", 443)], "and goes to the checked address"
    with pytest.raises(EgressRefused):
        await call("https://rebind.example/", resolver)
    assert len(dialled) == 1


async def test_all_public_addresses_are_tried(dialled):
    with pytest.raises(EgressFailed, match=r"could not connect to 'two\.example'"):
        await call("https://two.example:8443/", Answers(["93.184.216.34", "2606:4700::1111", "93.184.216.34"]))
    assert dialled == [("93.184.216.34", 8443), ("2606:4700::1111", 8443)]


@pytest.mark.parametrize("answer", [[], socket.gaierror("no such name"), UnicodeError("label too long")])
async def test_a_name_without_address(dialled, answer):
    with pytest.raises(EgressFailed, match=r"does not resolve|has no address"):
        await call("https://nowhere.example/", Answers(answer))
    assert dialled == []


async def test_a_slow_resolver_is_a_failure(monkeypatch):
    monkeypatch.setattr("instances.egress.CONNECT_SECONDS", 0.01)

    async def never(_host, _port):
        await asyncio.Event().wait()

    with pytest.raises(EgressFailed, match="does not resolve"):
        await call("https://slow.example/", never)


async def test_plain_http_only_into_holes(dialled):
    with pytest.raises(EgressRefused, match="https://"):
        await call("http://example.com/", Answers(["93.184.216.34"]))
    with pytest.raises(EgressRefused, match="https://"):
        await call("http://example.com/", Answers(["93.184.216.34"]), allow=["10.0.0.0/8"])
    assert dialled == []
    with pytest.raises(EgressFailed):
        await call("http://inside.example/", Answers(["10.1.2.3"]), allow=["10.0.0.0/8"])
    with pytest.raises(EgressFailed):
        await call("http://By.Name.:25/", Answers(["192.168.0.9"]), allow=["by.name"])
    with pytest.raises(EgressFailed):
        await call("http://example.com/", Answers(["93.184.216.34"]), plain_http=True)
    assert dialled == [("10.1.2.3", 80), ("192.168.0.9", 25), ("93.184.216.34", 80)]


async def test_a_hole_is_no_wider_than_written(dialled):
    for url, answer in [
        ("https://other.example/", ["11.0.0.1", "10.0.0.1", "127.0.0.1"]),
        ("https://sub.by.name/", ["127.0.0.1"]),
        ("https://10.0.1.1.nip.example/", ["10.0.1.1"]),
    ]:
        with pytest.raises(EgressRefused):
            await call(url, Answers(answer), allow=["10.0.0.0/24", "by.name"])
    assert dialled == []


async def test_the_platforms_own_services_stay_closed_inside_a_hole(dialled):
    settings = Settings(
        database_url="postgresql://u:p@db.inside:5433/millrace",
        redis_url="redis://10.0.0.6",
        metrics_bind="0.0.0.0:9999",
        egress_allow=("10.0.0.0/8", "127.0.0.1", "db.inside"),
    )
    client = EgressClient(EgressPolicy.from_settings(settings), resolver=Answers(["10.0.0.5"]))
    for url in (
        "http://db.inside:5433/",
        "http://alias.example:5433/",
        "http://10.0.0.5:5433/",
        "http://10.0.0.6:6379/",
        "http://[::ffff:10.0.0.6]:6379/",
        "http://127.0.0.1:9999/",
    ):
        with pytest.raises(EgressRefused, match="not allowed"):
            await client.request("GET", url)
    assert dialled == []
    with pytest.raises(EgressFailed):
        await client.request("GET", "http://10.0.0.5:8080/")
    assert dialled == [("10.0.0.5", 8080)]
    await client.close()


async def test_vetting_resolves_and_lets_unknown_names_pass():
    inside = EgressClient(EgressPolicy(), resolver=Answers(["192.168.1.1"]))
    with pytest.raises(EgressRefused):
        await inside.vet("https://hook.example/")
    unknown = EgressClient(EgressPolicy(), resolver=Answers(socket.gaierror()))
    await unknown.vet("https://not-yet.example/")
    with pytest.raises(EgressRefused):
        await unknown.vet("https://127.1/")
    await inside.close()
    await unknown.close()


async def test_proxies_of_the_environment_are_ignored(monkeypatch, dialled):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    with pytest.raises(EgressFailed):
        await call("https://example.com/", Answers(["93.184.216.34"]))
    assert dialled == [("93.184.216.34", 443)]

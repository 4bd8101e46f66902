"""No spelling of an inside address gets a call out, at write time or at connect time."""

import asyncio
import ipaddress
import re
import socket

import pytest

from app.settings import Settings, SettingsError
from instances.egress import EgressClient, EgressFailed, EgressPolicy, EgressRefused
from instances.egress.policy import is_public, literal, own_services, unmapped

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
    "[::ffff:0:127.0.0.1]", "192.0.0.9", "192.0.0.10", "192.0.0.170", "168.63.129.16", "[fd00:ec2::254]",
    "[2606:4700::1111%25eth0]", "[::ffff:8.8.8.8%25lo]", "8.8.8.8%25lo", "100.127.255.255", "[ff0e::1]",
    "[2001:1::1]", "[2001:4:112::1]", "[::]", "[fe80::]", "[64:ff9b::]", "[100:0:0:1::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE_LITERALS)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_inside_addresses_are_refused_when_written(host, scheme):
    policy = EgressPolicy(plain_http=True)
    assert policy.problem(f"{scheme}://{host}/") is not None
    assert policy.problem(f"{scheme}://{host}:8443/x?y#z") is not None


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "::/96", "::1/128", "::ffff:0:0:0/96", "64:ff9b::/96",
        "64:ff9b:1::/48", "100::/64", "2001::/32", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
        "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "4000::/3", "8000::/1", "::ffff:10.0.0.0/104",
    ],
)  # fmt: skip
def test_no_address_of_a_range_that_is_not_public_passes(network):
    first, last = ipaddress.ip_network(network)[0], ipaddress.ip_network(network)[-1]
    for address in (first, last, first + (int(last) - int(first)) // 3):
        parsed = unmapped(str(address))
        assert parsed is not None
        assert not is_public(parsed), address


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
        "https://example.com..", "https://.example.com", "https://a..b", "https://%31%32%37.0.0.1",
        "https://ex%61mple.com", "https://127.0.0.1%2f.example.com", "https://example.com:0", "https://:443",
        "https://@127.0.0.1", "https://:@example.com", "https://a@b@example.com", "https://127.0.0.1#@example.com",
        "https://127.0.0.1?@example.com", "https://" + "a." * 130 + "example", "https:example.com", "https://[::1]:x",
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


@pytest.mark.parametrize("port", ["0", "65536", "99999999999"])
def test_there_are_only_so_many_ports(port):
    assert EgressPolicy(["127.0.0.1"]).problem(f"http://127.0.0.1:{port}/") is not None


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
    seen = []

    async def create_connection(_factory, host, port, **_options):
        seen.append((host, port))
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
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
    assert str(caught.value) == "the URL must lead to an address that may be called"


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
    monkeypatch.setattr("instances.egress.gate.LOOKUP_SECONDS", 0.01)

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
        with pytest.raises(EgressRefused, match="may be called"):
            await client.request("GET", url)
        assert await client.vet(url) == "must lead to an address that may be called"
    assert dialled == []
    with pytest.raises(EgressFailed):
        await client.request("GET", "http://10.0.0.5:8080/")
    assert dialled == [("10.0.0.5", 8080)]
    await client.close()


async def test_a_service_whose_addresses_change_is_known_by_its_name(dialled):
    settings = Settings(database_url="postgresql://db.inside/x", egress_allow=("10.0.0.0/8",))
    client = EgressClient(EgressPolicy.from_settings(settings), resolver=Answers(["10.0.0.5"], ["10.0.0.6"]))
    with pytest.raises(EgressRefused, match="may be called"):
        await client.request("GET", "http://DB.inside.:5432/")
    assert dialled == []
    await client.close()


async def test_a_service_of_this_machine_is_closed_at_all_its_addresses(dialled):
    settings = Settings(
        database_url="postgresql://u:p@localhost/millrace", metrics_bind="", egress_allow=("127.0.0.0/8", "10.0.0.0/8")
    )
    client = EgressClient(EgressPolicy.from_settings(settings), resolver=Answers(["127.0.0.1"]))
    for host in ("localhost", "127.0.0.1", "127.0.0.2", "127.1.2.3", "[::ffff:127.9.9.9]"):
        with pytest.raises(EgressRefused, match="may be called"):
            await client.request("GET", f"http://{host}:5432/")
    assert dialled == []
    with pytest.raises(EgressFailed):
        await client.request("GET", "http://10.0.0.5:5432/")
    assert dialled == [("10.0.0.5", 5432)]
    await client.close()


@pytest.mark.parametrize(
    ("url", "services"),
    [
        ("postgresql://u:p@db/x", [("db", 5432)]),
        ("postgresql://u:p%40@db:6000/x?sslmode=require", [("db", 6000)]),
        ("postgresql://a:1,b,[fd00::1]:3/x", [("a", 1), ("b", 5432), ("fd00::1", 3)]),
        ("postgresql:///x?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///x?host=a,b&port=7", [("a", 7), ("b", 7)]),
        ("postgresql://a:9/x?hostaddr=10.0.0.1", [("a", 9), ("10.0.0.1", 9)]),
        ("postgresql://u@/x?host=/run/postgresql", []),
        ("postgresql://%2Frun%2Fpostgresql:7/x", []),
        ("postgresql:///x", []),
        ("", []),
        ("postgresql://[broken/x", []),
    ],
)
def test_every_host_of_the_database_is_known(url, services):
    assert own_services(Settings(database_url=url, metrics_bind="")) == services


@pytest.mark.parametrize(
    ("redis", "metrics", "services"),
    [
        ("redis://:pw@cache", "127.0.0.1:9100", [("cache", 6379), ("127.0.0.1", 9100)]),
        ("rediss://cache:7000/1", "[::1]:9100", [("cache", 7000), ("::1", 9100)]),
        ("unix:///run/redis.sock", "127.0.0.1:0", []),
        ("redis://cache:port", "nonsense", []),
    ],
)
def test_redis_and_the_metrics_are_known(redis, metrics, services):
    assert own_services(Settings(redis_url=redis, metrics_bind=metrics)) == services


async def test_what_is_denied_is_denied_even_inside_a_hole(dialled):
    policy = {
        "allow": ["10.0.0.0/8", "both.example"],
        "deny": ["10.0.0.0/24", "93.184.0.0/16", "Both.Example.", "bad.example", "2606:4700::/32"],
    }
    for url, answer in [
        ("http://10.0.0.9/", []),
        ("http://inside.example/", ["10.0.0.9"]),
        ("https://93.184.216.34/", []),
        ("https://public.example/", ["8.8.8.8", "93.184.216.34"]),
        ("https://public.example/", ["2606:4700::1111"]),
        ("https://bad.example/", ["8.8.8.8"]),
        ("https://BAD.example./", ["8.8.8.8"]),
        ("http://both.example/", ["8.8.8.8"]),
    ]:
        with pytest.raises(EgressRefused, match="may be called"):
            await call(url, Answers(answer), **policy)
    assert dialled == []
    assert EgressPolicy(**policy).problem("https://bad.example/") == "must lead to an address that may be called"
    with pytest.raises(EgressFailed):
        await call("http://10.0.1.9/", Answers([]), **policy)
    assert dialled == [("10.0.1.9", 80)]


@pytest.mark.parametrize(
    "entry", ["10.0.0.300", "10.0.0.0/33", "a b", "http://example.com", "*.example.com", "1.2", ""]
)
def test_what_is_neither_network_nor_name_is_a_wrong_setting(entry):
    for name in ("egress_allow", "egress_deny"):
        with pytest.raises(
            SettingsError, match=f"MILLRACE_EGRESS_ALLOW and MILLRACE_EGRESS_DENY: '{re.escape(entry)}'"
        ):
            EgressPolicy.from_settings(Settings(**{name: (entry,)}))


def test_plain_http_is_a_setting():
    assert EgressPolicy.from_settings(Settings()).problem("http://example.com/") == "must start with https://"
    assert EgressPolicy.from_settings(Settings(egress_plain_http=True)).problem("http://example.com/") is None


# --- when written ------------------------------------------------------------------------------------------------

NOT_PUBLIC = "must lead to an address that may be called"


@pytest.fixture
async def client_of():
    clients = []

    def make(resolver, **policy):
        clients.append(EgressClient(EgressPolicy(**policy), resolver=resolver))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.mark.parametrize(
    ("url", "answer", "rule"),
    [
        ("https://hook.example/", ["192.168.1.1"], NOT_PUBLIC),
        ("https://hook.example/", ["93.184.216.34", "::1"], NOT_PUBLIC),
        ("https://hook.example/", ["93.184.216.34"], None),
        ("https://hook.example/", socket.gaierror(), None),
        ("https://hook.example/", [], None),
        ("https://127.1/", [], NOT_PUBLIC),
        ("http://hook.example/", ["93.184.216.34"], "must start with https://"),
        ("https://hook.example:22/", ["93.184.216.34"],
         "must use port 443, 80, or one above 1023 that is not a known service's"),
        ("https://u:p@hook.example/", ["93.184.216.34"], "must not carry credentials"),
    ],
)  # fmt: skip
async def test_a_url_is_vetted_with_its_name_resolved(client_of, url, answer, rule):
    assert await client_of(Answers(answer)).vet(url) == rule


async def test_vetting_knows_the_holes(client_of):
    client = client_of(Answers(["10.1.2.3"]), allow=["10.0.0.0/8"])
    assert await client.vet("http://billing.internal:7070/") is None
    client = client_of(Answers(["93.184.216.34"]), allow=["10.0.0.0/8"])
    assert await client.vet("http://hook.example/") == "must start with https://"


async def test_a_name_that_passed_is_checked_again_when_it_is_called(client_of, dialled):
    resolver = Answers(["93.184.216.34"], ["169.254.169.254"])
    client = client_of(resolver)
    assert await client.vet("https://rebind.example/a") is None
    assert await client.vet("https://rebind.example/b?c") is None
    assert resolver.asked == ["rebind.example"], "a verdict is kept for a moment"
    with pytest.raises(EgressRefused):
        await client.request("GET", "https://rebind.example/a")
    assert dialled == []


async def test_a_verdict_is_kept_for_a_moment_only(client_of, monkeypatch):
    monkeypatch.setattr("instances.egress.gate.VETTED_SECONDS", 0)
    client = client_of(Answers(["93.184.216.34"], ["10.0.0.1"], ["93.184.216.34"]))
    assert [await client.vet("https://hook.example/") for _ in range(3)] == [None, NOT_PUBLIC, None]


async def test_vetting_waits_for_no_slow_name(client_of, monkeypatch):
    monkeypatch.setattr("instances.egress.gate.VET_SECONDS", 0.05)

    async def never(_host, _port):
        await asyncio.Event().wait()

    async with asyncio.timeout(3):
        assert await client_of(never).vet("https://slow.example/") is None


async def test_verdicts_do_not_pile_up(client_of, monkeypatch):
    monkeypatch.setattr("instances.egress.gate.VETTED", 3)
    resolver = Answers(["93.184.216.34"])
    client = client_of(resolver)
    for number in (1, 2, 3, 4, 4, 1):
        await client.vet(f"https://{number}.example/")
    assert resolver.asked == ["1.example", "2.example", "3.example", "4.example", "1.example"]


async def test_proxies_of_the_environment_are_ignored(monkeypatch, dialled):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    with pytest.raises(EgressFailed):
        await call("https://example.com/", Answers(["93.184.216.34"]))
    assert dialled == [("93.184.216.34", 443)]

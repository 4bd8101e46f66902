"""Connections are kept, shared with nobody else, replaced when they were closed, and never too many."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from instances.egress import EgressClient, EgressFailed, EgressPolicy, EgressTimeout
from tests.support.http_server import HttpServer, message


async def until(condition):
    """Wait for something the event loop brings about by itself."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def burst(client, url, count, **options):
    return await asyncio.gather(*(client.request("GET", url, **options) for _ in range(count)))


# --- kept --------------------------------------------------------------------------------------------------------


async def test_a_thousand_calls_need_no_more_connections_than_are_in_flight(server, client):
    server.answer("/", b"x")
    for _ in range(20):
        await burst(client, server.url("/"), 50)
    assert server.connections == len(client._pool) == 50
    assert len(client._turns) == 0


async def test_the_one_used_last_is_used_first(server, client):
    server.answer("/", b"x")
    await burst(client, server.url("/"), 3)
    await client.request("GET", server.url("/"))
    await client.request("GET", server.url("/"))
    assert server.requests[-1].connection == server.requests[-2].connection


async def test_connections_are_not_shared_between_accounts_or_origins(server, client):
    server.answer("/", b"x")
    for _ in range(2):
        for host in ("a.test", "b.test"):
            for lane in ("one", "two", None):
                await client.request("GET", server.url("/", host), lane=lane)
    assert server.connections == 6
    connections = [request.connection for request in server.requests]
    assert connections[:6] == connections[6:]


@pytest.mark.parametrize("close", ["Connection: close", "Content-Length: 9999999999999999999"])
async def test_what_the_server_does_not_keep_is_not_kept(server, client, close):
    server.answers["/"] = (
        f"HTTP/1.1 200 OK\r\n{close}\r\n\r\n".encode() if "9" in close else message(b"x", headers=[close])
    )
    for _ in range(2):
        async with await client.fetch("GET", server.url("/")) as response:
            if "9" not in close:
                await response.read()
    assert server.connections == 2


async def test_an_answer_nobody_asked_for_ends_the_connection(server, client):
    """Else it would be taken for the answer to the next call."""

    writers = []

    async def once(_request, writer):
        writers.append(writer)
        writer.write(message(b"first"))

    server.answers["/"] = once
    server.answers["/both"] = message(b"first") + message(b"second")
    server.answer("/other", b"other")
    await client.request("GET", server.url("/"))
    writers[0].write(message(b"second"))
    await until(lambda: len(client._pool) == 0)
    assert (await client.request("GET", server.url("/both"))).body == b"first"
    await until(lambda: len(client._pool) == 0)
    assert (await client.request("GET", server.url("/other"))).body == b"other"


@pytest.fixture
async def later(monkeypatch):
    """Moves the time of the event loop."""
    loop = asyncio.get_running_loop()
    real, moved = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + moved)

    async def later(seconds):
        nonlocal moved
        moved += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    return later


async def test_unused_connections_are_closed(server, client, later):
    server.answer("/", b"x")
    await burst(client, server.url("/"), 3)
    await later(6)
    await client.request("GET", server.url("/"))
    await client.request("GET", server.url("/"), lane="other")
    assert len(client._pool) == 4
    await later(5)
    assert len(client._pool) == 2, "two of three, used eleven seconds ago"
    await later(6)
    assert len(client._pool) == 0
    assert client._pool._by_key == {}
    await until(lambda: server.open == 0)
    await client.request("GET", server.url("/"))
    await later(11)
    assert len(client._pool) == 0


async def test_old_connections_are_not_used_again(server, client, later):
    server.answer("/", b"x")
    for seconds in (0, *[9] * 33):
        await later(seconds)
        await client.request("GET", server.url("/"))
    assert server.connections == 1
    for _ in range(2):
        await later(9)
        await client.request("GET", server.url("/"))
    assert server.connections == 2, "after 300 seconds"


async def test_a_new_connection_takes_the_place_of_the_one_used_longest_ago(server, client, monkeypatch):
    monkeypatch.setattr("instances.egress.pool.CONNECTIONS", 3)
    server.answer("/", b"x")
    for lane in ("a", "b", "c", "a", "d"):
        await client.request("GET", server.url("/"), lane=lane)
    await until(lambda: len(client._pool) == server.open == 3)
    before = server.connections
    for lane in ("a", "c", "d"):
        await client.request("GET", server.url("/"), lane=lane)
    assert server.connections == before, "it was b's"


async def test_each_new_connection_resolves_its_name_once(server):
    asked = []

    async def resolver(host, port):
        asked.append((host, port))
        return ["127.0.0.1"]

    client = EgressClient(EgressPolicy(["127.0.0.1"]), resolver=resolver)
    server.answer("/", b"x")
    for _ in range(3):
        await client.request("GET", server.url("/", "a.test"))
    assert asked == [("a.test", server.port)]
    server.hang_up()
    await until(lambda: len(client._pool) == 0)
    await client.request("GET", server.url("/", "a.test"))
    assert len(asked) == 2
    await client.close()


# --- closed in between -------------------------------------------------------------------------------------------


def dying(server):
    """From now on the server closes a connection at its second request, without an answer."""
    server.answer("/", b"x")
    seen = set()

    async def answer(request, writer):
        if request.connection in seen:
            writer.transport.abort()
        else:
            seen.add(request.connection)
            writer.write(message(b"x"))

    server.answers["/"] = answer


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", []), ("HEAD", []), ("OPTIONS", []), ("PUT", []), ("DELETE", []), ("POST", [("idempotency-KEY", "1")])],
)
async def test_a_call_that_may_be_repeated_is_sent_again(server, client, method, headers):
    dying(server)
    for _ in range(3):
        assert (await client.request(method, server.url("/"), headers=headers)).status == 200
    assert server.connections == 3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_any_other_is_not(server, client, method):
    dying(server)
    await client.request(method, server.url("/"))
    with pytest.raises(EgressFailed, match="broke"):
        await client.request(method, server.url("/"))
    assert len(server.requests) == 2
    assert (await client.request(method, server.url("/"))).status == 200


async def test_a_new_connection_that_is_closed_is_not_tried_again(server, client):
    async def hang_up(_request, writer):
        writer.transport.abort()

    server.answers["/"] = hang_up
    with pytest.raises(EgressFailed, match="broke"):
        await client.request("GET", server.url("/"))
    assert server.connections == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_that_had_begun_is_not_asked_for_again(server, client, reset):
    server.answer("/", b"x")
    await client.request("GET", server.url("/"))

    async def begin(_request, writer):
        writer.write(b"HTTP/1.1 200")
        await until(lambda: any(connection._answered for connection in client._pool._open))
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server.answers["/"] = begin
    with pytest.raises(EgressFailed, match="broke"):
        await client.request("GET", server.url("/"))
    assert len(server.requests) == 2


# --- TLS ---------------------------------------------------------------------------------------------------------


def certificate(names, *, days=1):
    """A certificate that vouches for itself: its key and itself, as one PEM text."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text + made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
async def tls(tmp_path):
    """Starts TLS servers, and makes clients that believe them."""
    servers, clients = [], []

    async def start(*names, days=1):
        path = tmp_path / f"{len(servers)}.pem"
        path.write_bytes(certificate(names, days=days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        server = HttpServer()
        server.sni, server.answers["/"] = [], message(b"x")
        context.sni_callback = lambda _socket, name, _context: server.sni.append(name)
        await server.start(context)

        async def resolver(_host, _port):
            return ["127.0.0.1"]

        client = EgressClient(
            EgressPolicy(["127.0.0.1"]), resolver=resolver, tls=ssl.create_default_context(cafile=path)
        )
        servers.append(server)
        clients.append(client)
        return server, client

    yield start
    for client in clients:
        await client.close()
    for server in servers:
        await server.stop()


async def test_tls_keeps_the_name(tls):
    server, client = await tls("a.test", "127.0.0.1")
    for host in ("a.test", "A.TEST", "a.test.", "127.0.0.1"):
        assert (await client.request("GET", server.url("/", host, "https"))).body == b"x"
    assert server.sni == ["a.test", None], "an address is no server name"
    assert [dict(request.headers)["Host"].partition(":")[0] for request in server.requests] == [
        "a.test", "a.test", "a.test.", "127.0.0.1",
    ]  # fmt: skip
    assert server.connections == 2


@pytest.mark.parametrize(("names", "days"), [(["other.test"], 1), (["a.test"], -1)])
async def test_a_wrong_certificate_is_refused(tls, names, days):
    server, client = await tls(*names, days=days)
    with pytest.raises(EgressFailed, match=r"the certificate of 'a\.test' is not valid"):
        await client.request("GET", server.url("/", "a.test", "https"))
    assert server.requests == []
    assert len(client._pool) == 0


async def test_who_signed_it_matters(tls):
    server, _ = await tls("a.test")
    _, other = await tls("a.test")
    with pytest.raises(EgressFailed, match="certificate"):
        await other.request("GET", server.url("/", "a.test", "https"))


@pytest.fixture
async def listener():
    """Starts servers that do with a connection what they are told."""
    servers = []

    async def start(serve):
        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return f"https://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_what_does_not_speak_tls(client, listener):
    async def refuse(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    with pytest.raises(EgressFailed, match="could not connect"):
        await client.request("GET", await listener(refuse))


async def test_a_handshake_that_never_ends(client, listener, monkeypatch):
    monkeypatch.setattr("instances.egress.pool.CONNECT_SECONDS", 0.05)
    gone = asyncio.Event()

    async def hold(reader, writer):
        await reader.read()
        writer.close()
        gone.set()

    url = await listener(hold)
    with pytest.raises(EgressFailed, match="could not connect"):
        await client.request("GET", url)
    async with asyncio.timeout(5):
        await gone.wait()
    with pytest.raises(EgressTimeout):
        await client.request("GET", url, timeout=0.02)
    assert len(client._pool) == 0


async def test_the_authorities_are_loaded_once_and_are_the_systems(client):
    context = await client._pool._tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) > 50
    assert await client._pool._tls_context() is context

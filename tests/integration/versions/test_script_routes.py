"""Scripts over HTTP: both clients' uploads, what is refused, secrets at rest."""

import base64
import dataclasses
import json
from typing import Any
from uuid import UUID

import cloudflare
import pytest
from multipart import MultipartParser, parse_options_header

from tenants.errors import CannotDecrypt
from tenants.service import TenantService
from versions.scripts import ScriptService

MAIN = b"export default {}"
METADATA: dict[str, Any] = {"main_module": "index.js", "bindings": [], "compatibility_date": "2026-11-01"}


def wrangler_body(metadata: Any, modules: list[tuple[str, bytes, str]]) -> tuple[bytes, dict[str, str]]:
    """Metadata first, as a plain field; each module under its own name."""
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    parts = [b'Content-Disposition: form-data; name="metadata"\r\n\r\n' + text]
    for name, content, kind in modules:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
        parts.append(head.encode() + content)
    body = b"".join(b"--bnd\r\n" + part + b"\r\n" for part in parts) + b"--bnd--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=bnd", "user-agent": "wrangler/4.164.0"}


async def upload(api, name="worker", metadata=METADATA, modules=None, query=""):
    modules = [("index.js", MAIN, "application/javascript+module")] if modules is None else modules
    body, headers = wrangler_body(metadata, modules)
    return await api("PUT", f"/workers/scripts/{name}{query}", content=body, headers=headers)


async def test_the_upload_of_wrangler(api, clock):
    modules = [
        ("index.js", MAIN, "application/javascript+module"),
        ("./abc-thanks.txt", "grüße".encode(), "text/plain"),
        ("blob.bin", b"\0\xff", "application/octet-stream"),
        ("index.js.map", b"{}", "application/source-map"),
    ]
    query = "?excludeScript=true&bindings_inherit=strict"
    status, result, _ = await upload(api, modules=modules, query=query)
    assert status == 200
    assert UUID(result.pop("deployment_id"))
    assert UUID(result.pop("tag"))
    assert len(result.pop("etag")) == 64
    shown = {
        "id": "worker",
        "created_on": "2026-01-01T00:00:00.000Z",
        "modified_on": "2026-01-01T00:00:00.000Z",
        "tags": [],
        "handlers": [],
        "named_handlers": [],
        "has_modules": True,
        "has_assets": False,
        "compatibility_date": "2026-11-01",
        "compatibility_flags": [],
        "logpush": False,
        "usage_model": "standard",
        "last_deployed_from": "wrangler",
    }
    assert result == shown | {"startup_time_ms": 0, "pipeline_hash": None, "mutable_pipeline_id": None}
    answer = await api.raw("GET", "/workers/scripts/worker")
    kind, options = parse_options_header(answer.headers["content-type"])
    assert kind == "multipart/form-data"
    parts = {part.filename: part.raw for part in MultipartParser(_stream(answer.content), options["boundary"])}
    assert parts == {"index.js": MAIN, "./abc-thanks.txt": "grüße".encode(), "blob.bin": b"\0\xff"}


def _stream(content: bytes) -> Any:
    import io

    return io.BytesIO(content)


async def test_a_second_upload_replaces_the_first(api, clock, admin):
    _, first, _ = await upload(api)
    clock.advance(60)
    changed = [("index.js", b"export class A {}", "text/javascript")]
    _, second, _ = await upload(api, modules=changed, metadata=METADATA | {"tags": ["blue"]})
    assert second["created_on"] == first["created_on"]
    assert second["modified_on"] == "2026-01-01T00:01:00.000Z"
    assert second["etag"] != first["etag"]
    _, rows, _ = await api("GET", "/workers/scripts")
    assert [(row["id"], row["etag"]) for row in rows] == [("worker", second["etag"])]
    assert len((await api("GET", "/workers/scripts?tags=blue:yes"))[1]) == 1
    assert (await api("GET", "/workers/scripts?tags=blue:no,red:yes"))[1] == []
    assert (await api("GET", "/workers/scripts?tags=blue"))[0] == 400
    answer = await api.raw("GET", "/workers/scripts/worker")
    assert answer.content == b"export class A {}"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert await admin.fetchval("select count(*) from script") == 2


async def test_delete(api, clock):
    await upload(api)
    assert (await api("DELETE", "/workers/scripts/worker?force=true"))[:2] == (200, None)
    for method in ("GET", "DELETE"):
        status, _, envelope = await api(method, "/workers/scripts/worker")
        assert (status, envelope["errors"][0]["code"]) == (404, 10007)
    assert (await api("GET", "/workers/scripts"))[1] == []
    clock.advance(5)
    assert (await upload(api))[1]["created_on"] == "2026-01-01T00:00:05.000Z"


async def test_the_upload_of_the_sdk(sdk, api):
    account = api.account_id.hex
    metadata = {
        "main_module": "entry.py",
        "compatibility_flags": ["python_workers"],
        "bindings": [{"type": "plain_text", "name": "GREETING", "text": "hi"}],
    }
    files = [("entry.py", b"class Flow: ...", "text/x-python"), ("lib.py", b"x = 1", "text/x-python")]
    made = await sdk.workers.scripts.update("flows", account_id=account, metadata=metadata, files=files)
    assert (made.id, made.compatibility_flags, made.startup_time_ms) == ("flows", ["python_workers"], 0)
    assert [row.id async for row in sdk.workers.scripts.list(account_id=account)] == ["flows"]
    assert "class Flow" in await sdk.workers.scripts.get("flows", account_id=account)
    await sdk.workers.scripts.delete("flows", account_id=account)
    with pytest.raises(cloudflare.NotFoundError):
        await sdk.workers.scripts.get("flows", account_id=account)


async def test_secrets_are_sealed_and_kept(api, admin, versions, boss):
    secret = {"type": "secret_text", "name": "KEY", "text": "hunter2-hunter2"}
    plain = {"type": "plain_text", "name": "MODE", "text": "fast"}
    assert (await upload(api, metadata=METADATA | {"bindings": [secret, plain]}))[0] == 200
    stored = await admin.fetchrow("select * from script")
    assert "hunter2" not in " ".join(str(value) for value in stored.values())
    row = await versions.scripts.deployed(boss, "worker")
    assert versions.scripts.secrets(row) == {"KEY": "hunter2-hunter2"}
    assert json.loads(row.bindings) == [{"type": "secret_text", "name": "KEY"}, plain]
    kept = METADATA | {"keep_bindings": ["secret_text", "secret_key"]}
    await upload(api, metadata=kept)
    row = await versions.scripts.deployed(boss, "worker")
    assert versions.scripts.secrets(row) == {"KEY": "hunter2-hunter2"}
    assert json.loads(row.bindings) == [{"type": "secret_text", "name": "KEY"}]
    inherit = METADATA | {"bindings": [{"type": "inherit", "name": "KEY"}]}
    await upload(api, metadata=inherit, query="?bindings_inherit=strict")
    row = await versions.scripts.deployed(boss, "worker")
    assert versions.scripts.secrets(row) == {"KEY": "hunter2-hunter2"}
    await upload(api)
    row = await versions.scripts.deployed(boss, "worker")
    assert versions.scripts.secrets(row) == {}


async def test_secrets_are_renewed_while_the_platforms_secret_is_replaced(
    api, make_api, stranger, admin, versions, boss, db, clock, ids, settings, monkeypatch
):
    def scripts(**secrets: str) -> ScriptService:
        return ScriptService(db, clock, ids, TenantService(db, clock, ids, dataclasses.replace(settings, **secrets)))

    monkeypatch.setattr("versions.scripts.SEALED_PAGE", 2)
    one, two = ({"type": "secret_text", "name": name, "text": name.lower()} for name in ("ONE", "TWO"))
    for name, bindings in (("a", [one, two]), ("b", []), ("c", [two]), ("d", [one])):
        await upload(api, name=name, metadata=METADATA | {"bindings": bindings})
    await upload(await make_api(stranger), metadata=METADATA | {"bindings": [one]})
    new = "another secret, long enough as well"
    rotating, after = scripts(secret=new, secret_previous=settings.secret), scripts(secret=new)

    assert await after.renew_secrets() == 0, "without the previous secret nothing can be done"
    cipher = base64.b64decode(await admin.fetchval("select secrets::json->>'ONE' from script where name = 'd'"))
    damaged = json.dumps({"ONE": base64.b64encode(cipher[:-1]).decode()})
    await admin.execute("update script set secrets = $1 where name = 'd'", damaged)
    [old] = await versions.scripts.secrets_by_key()
    assert await rotating.renew_secrets() == 3
    assert await rotating.renew_secrets() == 0
    counts = await rotating.secrets_by_key()
    assert (counts.pop(old), sorted(counts.values())) == (1, [4])
    row = await after.deployed(boss, "a")
    assert after.secrets(row) == {"ONE": "one", "TWO": "two"}
    with pytest.raises(CannotDecrypt):
        versions.scripts.secrets(row)


async def test_inherit_without_anything_to_inherit(api):
    metadata = METADATA | {"bindings": [{"type": "inherit", "name": "GONE"}]}
    status, _, envelope = await upload(api, metadata=metadata, query="?bindings_inherit=strict")
    assert (status, envelope["errors"][0]["code"]) == (400, 10057)
    status, _, envelope = await upload(api, metadata=metadata)
    assert status == 200
    assert "GONE" in envelope["messages"][0]["message"]


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ({"type": "kv_namespace", "name": "KV", "namespace_id": "x"}, "'KV' has type 'kv_namespace'"),
        ({"type": "durable_object_namespace", "name": "DO"}, "plain_text, json, secret_text, workflow, inherit"),
        ({"type": None, "name": "X"}, "'X'"),
        ({"type": "plain_text"}, "binding 0"),
        ({"type": "plain_text", "name": 5, "text": "x"}, "binding 0"),
        ({"type": "plain_text", "name": "X", "text": 5}, "'X' (plain_text)"),
        ({"type": "secret_text", "name": "X"}, "'X' (secret_text)"),
        ({"type": "json", "name": "X"}, "'X' (json)"),
        ({"type": "workflow", "name": "X", "workflow_name": "a.b"}, "workflow_name"),
        ({"type": "workflow", "name": "X", "workflow_name": "w", "class_name": 5}, "class_name"),
    ],
)
async def test_bindings_that_are_refused(api, binding, words):
    status, _, envelope = await upload(api, metadata=METADATA | {"bindings": [binding]})
    assert (status, envelope["errors"][0]["code"]) == (400, 10021)
    assert words in envelope["errors"][0]["message"]


async def test_bindings_that_are_taken(api, versions, boss):
    bindings = [
        {"type": "workflow", "name": "FLOW", "workflow_name": "flow", "class_name": "Flow"},
        {"type": "json", "name": "CONFIG", "json": {"a": [1]}},
    ]
    assert (await upload(api, metadata=METADATA | {"bindings": bindings}))[0] == 200
    assert json.loads((await versions.scripts.deployed(boss, "worker")).bindings) == bindings


@pytest.mark.parametrize(
    ("metadata", "modules", "code"),
    [
        (b"nonsense", None, 10021),
        (b"[]", None, 10021),
        (b'{"main_module": 5}', None, 10021),
        (b'{"main_module": "index.js", "bindings": [7]}', None, 10021),
        (b"{}", None, 10021),
        (b"\xff", None, 10021),
        ({"main_module": "other.js"}, None, 10021),
        (METADATA, [], 10021),
        (METADATA, [("index.js", b"\xff\xfe", "text/javascript")], 10021),
        (METADATA, [("index.js", MAIN, "text/javascript")] * 2, 10021),
        (METADATA, [("index.js", MAIN, "application/source-map")], 10021),
        (METADATA | {"bindings": [{"type": "json", "name": "A", "json": 1}] * 2}, None, 10021),
    ],
)
async def test_uploads_that_are_refused(api, metadata, modules, code):
    status, _, envelope = await upload(api, metadata=metadata, modules=modules)
    assert (status, envelope["errors"][0]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"x", {"content-type": "application/javascript"}),
        (b"", {"content-type": "multipart/form-data; boundary=b"}),
        (b"garbage", {"content-type": "multipart/form-data; boundary=b"}),
        (b"--b\r\nx: y\r\n\r\n\r\n--b--", {"content-type": "multipart/form-data; boundary=b"}),
        (b"--b\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\nx\r\n--b--",
         {"content-type": "multipart/form-data; boundary=b"}),
        (b"--b\r\n", {"content-type": "multipart/form-data; boundary=b"}),
        (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"x" * 100,
         {"content-type": "multipart/form-data; boundary=b"}),
        (b"".join(b"--b\r\nContent-Disposition: form-data; name=a%d\r\n\r\n\r\n" % n for n in range(1200)) + b"--b--",
         {"content-type": "multipart/form-data; boundary=b"}),
    ],
)  # fmt: skip
async def test_bodies_that_are_no_upload(api, content, headers):
    status, _, envelope = await api("PUT", "/workers/scripts/worker", content=content, headers=headers)
    assert status == 400
    assert envelope["errors"][0]["code"] in (10002, 10021)


async def test_quotas(api, admin, boss):
    limits = json.dumps({"scripts": 1, "script_bytes": 100})
    await admin.execute("update account set limits = $2 where account_id = $1", boss.account_id, limits)
    assert (await upload(api, "one"))[0] == 200
    assert (await upload(api, "one"))[0] == 200
    status, _, envelope = await upload(api, "two")
    assert (status, envelope["errors"][0]["code"]) == (403, 10461)
    large = [("index.js", b"x" * 101, "text/javascript")]
    status, _, envelope = await upload(api, "one", modules=large)
    assert (status, envelope["errors"][0]["code"]) == (413, 10027)


async def test_a_strangers_page_is_not_served_as_one(api):
    await upload(api, modules=[("index.js", b"<script>alert(1)</script>", "text/html")])
    answer = await api.raw("GET", "/workers/scripts/worker")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_scopes_and_walls(api, make_api, boss, stranger):
    await upload(api)
    reader = await make_api(boss, "scripts:read")
    assert len((await reader("GET", "/workers/scripts"))[1]) == 1
    assert (await upload(reader))[0] == 403
    assert (await reader("DELETE", "/workers/scripts/worker"))[0] == 403
    theirs = await make_api(stranger)
    assert (await theirs("GET", "/workers/scripts"))[1] == []
    assert (await theirs("GET", "/workers/scripts/worker"))[0] == 404
    assert (await theirs("DELETE", "/workers/scripts/worker"))[0] == 404
    assert (await (await make_api(boss, "workflows:read"))("GET", "/workers/scripts"))[0] == 403


async def test_a_workflow_needs_a_class_the_script_exports(api):
    await upload(api)
    body = {"class_name": "Flow", "script_name": "worker"}
    status, _, envelope = await api("PUT", "/workflows/flow", json=body)
    assert (status, envelope["errors"][0]["code"]) == (400, 10021)
    assert "exports no class 'Flow'" in envelope["errors"][0]["message"]


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (
            [("index.js", MAIN, "application/javascript+module"), ("a.wasm", b"\0asm", "application/wasm")],
            "WebAssembly",
        ),
        ([("index.js", MAIN, "application/javascript+module"), ("a.py", b"1", "text/x-python")], "not JavaScript"),
    ],
)
async def test_modules_that_do_not_run_are_named(api, modules, words):
    status, _, envelope = await upload(api, modules=modules)
    assert (status, envelope["errors"][0]["code"]) == (400, 10021)
    assert words in envelope["errors"][0]["message"] and modules[1][0] in envelope["errors"][0]["message"]

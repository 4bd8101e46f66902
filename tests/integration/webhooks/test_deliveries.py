"""From deliveries to endpoints: signed, repeated by the schedule, given up, and never waiting for each other."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import standardwebhooks

from app.errors import InvalidRequest
from instances.egress import EgressClient, EgressPolicy
from instances.lifecycle import Kind
from jobs.webhooks.errors import DeliveryNotFound, WebhookInactive, WebhookNotFound
from jobs.webhooks.retiring import RetireDeliveries
from jobs.webhooks.schedule import DELAYS, LANES
from jobs.webhooks.schemas import DeliveryStatus
from jobs.webhooks.sender import LEASE, SendDeliveries
from jobs.webhooks.sending import Poster
from jobs.webhooks.service import Wanted, WebhookService
from jobs.webhooks.store import sending
from tests.integration.webhooks.conftest import HALF, Post, header
from tests.support.http_server import Request

STARTED = "workflow.execution.started"


async def happened(post: Post, number: int = 1) -> None:
    """Events that are put up and not sent yet."""
    for _ in range(number):
        name = f"i{len(post.keys)}"
        await post.made(name)
        await post.happen(name, (Kind.STARTED,))
    await post.dispatched()


async def only(post: Post, no: int) -> Any:
    [one], total = await post.webhooks.deliveries(post.world.caller, no, limit=10)
    assert total == 1
    return one


async def test_a_delivery_is_signed_and_says_what_it_is(post: Post) -> None:
    hook = await post.listen(STARTED)
    assert hook.secret is not None and hook.secret.startswith("whsec_")
    await happened(post)
    await post.sent()
    [request] = post.receiver.requests
    headers = {name.lower(): value for name, value in request.headers}
    body = json.loads(request.body)
    assert request.method == "POST" and request.path == "/hook"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "millrace-webhooks/1.2.3"
    assert headers["webhook-id"] == body["id"]
    assert headers["x-webhook-event"] == STARTED
    verifier = standardwebhooks.Webhook(hook.secret)
    stamp = int(headers["webhook-timestamp"])
    assert stamp == int(post.world.clock.now().timestamp())
    expected = verifier.sign(body["id"], post.world.clock.now(), request.body.decode())
    assert headers["webhook-signature"] == expected
    one = await only(post, hook.no)
    assert (one.status, one.attempts, one.last_status) == (DeliveryStatus.DELIVERED, 1, 200)
    assert one.delivered_at == post.world.clock.now() and one.next_at is None
    assert one.log[0].answer == "thanks" and one.log[0].error is None


async def test_the_schedule_to_the_end_and_the_way_back(post: Post) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"no " * 1000, "500 Internal Server Error")
    began = post.world.clock.now()
    await happened(post)
    times: list[float] = []
    one: Any = None
    for made in range(1, len(DELAYS) + 1):
        await post.sent()
        times.append((post.world.clock.now() - began).total_seconds())
        one = await only(post, hook.no)
        assert one.attempts == made and one.last_status == 500
        if made == len(DELAYS):
            break
        assert one.status is DeliveryStatus.PENDING
        assert one.next_at == post.world.clock.now() + DELAYS[made]
        post.world.clock.advance(DELAYS[made].total_seconds() - 0.001)
        await post.sent()
        assert len(post.receiver.requests) == made  # not a moment too early
        post.world.clock.advance(0.001)
    assert times[:4] == [0, 5, 305, 2105] and times[-1] / 3600 == pytest.approx(75.6, abs=0.1)
    assert one.status is DeliveryStatus.DEAD and one.next_at is None
    assert len(one.log[-1].answer) == 1024 and one.log[-1].error == "the endpoint answered 500"
    post.world.clock.advance(100_000)
    await post.sent()
    assert len(post.receiver.requests) == len(DELAYS)
    ids = {header(request, "webhook-id") for request in post.receiver.requests}
    bodies = {request.body for request in post.receiver.requests}
    stamps = {header(request, "webhook-timestamp") for request in post.receiver.requests}
    assert len(ids) == len(bodies) == 1 and len(stamps) == len(DELAYS)

    post.receiver.requests.clear()
    again = await post.webhooks.redeliver(post.world.caller, one.no, webhook_no=hook.no)
    assert again.status is DeliveryStatus.PENDING and again.next_at == post.world.clock.now()
    await post.sent()
    [request] = post.receiver.requests
    assert {header(request, "webhook-id")} == ids
    assert header(request, "webhook-timestamp") == str(int(post.world.clock.now().timestamp()))
    one = await only(post, hook.no)
    assert one.status is DeliveryStatus.PENDING and one.attempts == 11
    assert one.next_at == post.world.clock.now() + DELAYS[1]  # the schedule began anew
    post.receiver.answer("/hook")
    await post.webhooks.redeliver(post.world.caller, one.no)
    await post.sent()
    assert (await only(post, hook.no)).status is DeliveryStatus.DELIVERED


@pytest.mark.parametrize("status", ["204 No Content", "299 Whatever"])
async def test_any_2xx_is_success(post: Post, status: str) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"", status)
    await happened(post)
    await post.sent()
    assert (await only(post, hook.no)).status is DeliveryStatus.DELIVERED


async def test_a_redirect_is_a_failure_and_not_followed(post: Post) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"", "307 Temporary Redirect", [f"Location: {post.receiver.url('/other')}"])
    post.receiver.answer("/other")
    await happened(post)
    await post.sent()
    one = await only(post, hook.no)
    assert (one.status, one.last_status) == (DeliveryStatus.PENDING, 307)
    assert [request.path for request in post.receiver.requests] == ["/hook"]


async def test_nobody_there(post: Post) -> None:
    hook = await post.listen(STARTED)
    await happened(post)
    await post.receiver.stop()
    await post.sent()
    one = await only(post, hook.no)
    assert (one.status, one.last_status) == (DeliveryStatus.PENDING, None)
    assert "could not connect" in (one.last_error or "")


async def test_an_endpoint_that_does_not_answer_is_given_up(post: Post) -> None:
    hook = await post.listen(STARTED, path="/silent")
    await happened(post)
    post.sender._seconds = 0.05
    await post.sent()
    one = await only(post, hook.no)
    assert (one.status, one.last_status) == (DeliveryStatus.PENDING, None)
    assert "within 0.05 s" in (one.last_error or "")


async def test_retry_after_puts_the_next_attempt_off(post: Post) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"", "503 Service Unavailable", ["Retry-After: 3600"])
    await happened(post)
    await post.sent()
    assert (await only(post, hook.no)).next_at == post.world.clock.now() + timedelta(hours=1)


async def test_gone_switches_the_endpoint_off_at_once(post: Post) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"", "410 Gone")
    await happened(post)
    await post.sent()
    told = await post.webhooks.get(post.world.caller, hook.no)
    assert (told.active, told.disabled_reason) == (False, "gone")
    one = await only(post, hook.no)
    assert one.status is DeliveryStatus.DEAD
    with pytest.raises(WebhookInactive):
        await post.webhooks.redeliver(post.world.caller, one.no)
    await happened(post)
    assert (await only(post, hook.no)).no == one.no
    told = await post.webhooks.update(post.world.caller, hook.no, Wanted(active=True))
    assert (told.active, told.disabled_reason) == (True, None)
    post.receiver.answer("/hook")
    await post.webhooks.redeliver(post.world.caller, one.no)
    await post.sent()
    assert (await only(post, hook.no)).status is DeliveryStatus.DELIVERED


async def test_five_days_without_a_success_and_twenty_failures_switch_it_off(post: Post) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"", "500 Internal Server Error")
    await happened(post, 19)
    await post.sent()
    post.world.clock.advance(timedelta(days=5).total_seconds() - 1)
    assert (await post.webhooks.get(post.world.caller, hook.no)).active
    await post.world.admin.execute("update webhook_delivery set status = 2")
    await happened(post)
    await post.sent()  # the twentieth, a second too early
    assert (await post.webhooks.get(post.world.caller, hook.no)).active
    await post.world.admin.execute("update webhook_delivery set status = 2")
    post.world.clock.advance(1)
    await happened(post)
    await post.sent()
    told = await post.webhooks.get(post.world.caller, hook.no)
    assert (told.active, told.disabled_reason) == (False, "failing")


async def test_a_success_forgives_failures(post: Post) -> None:
    hook = await post.listen(STARTED)
    post.receiver.answer("/hook", b"", "500 Internal Server Error")
    await happened(post, 25)
    await post.sent()
    await post.world.admin.execute("update webhook_delivery set status = 2")
    post.receiver.answer("/hook")
    await happened(post)
    await post.sent()
    post.receiver.answer("/hook", b"", "500 Internal Server Error")
    post.world.clock.advance(timedelta(days=6).total_seconds())
    await happened(post)
    await post.sent()
    assert (await post.webhooks.get(post.world.caller, hook.no)).active
    row = await post.world.admin.fetchrow("select failures, failing_since from webhook")
    assert row is not None
    assert (row["failures"], row["failing_since"]) == (1, post.world.clock.now())


class Holding:
    """Answers when it is told, and knows how many wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.go = asyncio.Event()
        self.changed = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.changed.set()
        await self.go.wait()
        self.waiting -= 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def until(self, number: int) -> None:
        async with asyncio.timeout(20):
            while self.waiting < number:
                self.changed.clear()
                await self.changed.wait()


async def test_a_slow_endpoint_keeps_nobody_waiting_and_has_eight_lanes(post: Post) -> None:
    slow = await post.listen(STARTED, path="/slow")
    quick = await post.listen(STARTED)
    holding = Holding()
    post.receiver.answers["/slow"] = holding
    await happened(post, 20)

    async def quickly() -> None:
        """The quick endpoint gets all of its own while the slow one answers nothing."""
        while True:
            await post.sender.tick()
            _, left = await post.webhooks.deliveries(
                post.world.caller, quick.no, status=DeliveryStatus.PENDING, limit=1
            )
            if not left:
                return
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await quickly()
    await holding.until(LANES)
    assert holding.waiting == holding.most == LANES
    _, left = await post.webhooks.deliveries(post.world.caller, slow.no, status=DeliveryStatus.PENDING, limit=1)
    assert left == 20
    await happened(post)  # now something of it is due again
    other = SendDeliveries(post.db, post.world.clock, post.webhooks.poster, post.webhooks.sealing)
    await other.tick()  # lanes are counted over all workers
    await other.drained()  # what the quick one got
    assert holding.waiting == holding.most == LANES
    holding.go.set()
    await post.sent()
    assert holding.most == LANES
    _, left = await post.webhooks.deliveries(post.world.caller, slow.no, status=DeliveryStatus.PENDING, limit=1)
    assert left == 0


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "504 Gateway Timeout"])
async def test_who_asks_for_less_gets_less_for_five_minutes(post: Post, status: str) -> None:
    await post.listen(STARTED)
    post.receiver.answer("/hook", b"", status)
    await happened(post)
    await post.sent()
    await post.world.admin.execute("update webhook_delivery set status = 2")
    holding = Holding()
    post.receiver.answers["/hook"] = holding
    await happened(post, 20)
    await post.sender.tick()
    await holding.until(LANES // 2)
    await post.sender.tick()
    assert len(post.sender._under_way) == LANES // 2
    post.world.clock.advance(300)
    await post.world.admin.execute("update webhook set due_at = $1", post.world.clock.now())
    await post.world.admin.execute(
        "update webhook_delivery set next_at = $1 where claimed", post.world.clock.now() + LEASE
    )
    await post.sender.tick()
    await holding.until(LANES)
    assert len(post.sender._under_way) == LANES
    holding.go.set()
    await post.sent()


async def test_what_a_dead_worker_had_in_hand_is_sent_by_another(post: Post) -> None:
    hook = await post.listen(STARTED)
    holding = Holding()
    post.receiver.answers["/hook"] = holding
    await happened(post, 3)
    dead = SendDeliveries(post.db, post.world.clock, post.webhooks.poster, post.webhooks.sealing)
    await dead.tick()
    await holding.until(3)
    await dead.stop()
    post.receiver.answer("/hook")
    await post.sent()
    _, left = await post.webhooks.deliveries(post.world.caller, hook.no, status=DeliveryStatus.PENDING, limit=1)
    assert left == 3  # they are the dead one's for a while
    post.world.clock.advance(LEASE.total_seconds())
    await post.sent()
    found, _ = await post.webhooks.deliveries(post.world.caller, hook.no, limit=10)
    assert [(one.status, one.attempts) for one in found] == [(DeliveryStatus.DELIVERED, 1)] * 3


async def test_an_outcome_that_comes_too_late_changes_nothing(post: Post, monkeypatch) -> None:
    hook = await post.listen(STARTED)
    await happened(post)
    now = post.world.clock.now()
    [late] = await sending.claim(post.db, now, now + LEASE, 10, [])
    post.world.clock.advance(LEASE.total_seconds())
    await post.sent()
    delivered = await only(post, hook.no)
    outcome = sending.Outcome(status=DeliveryStatus.DEAD, attempt=delivered.log[0], next_at=None, expires_at=now)
    assert await sending.finish(post.db, late, outcome, post.world.clock.now()) is None
    assert await only(post, hook.no) == delivered


async def test_an_address_is_checked_again_when_it_is_used(post: Post, db, tenants, ids) -> None:
    """A name may lead elsewhere than when it was registered; here, the operator's hole is closed since."""
    hook = await post.listen(STARTED)
    await happened(post)
    closed = EgressClient(EgressPolicy())
    sender = SendDeliveries(db, post.world.clock, Poster(closed, "1"), post.webhooks.sealing, chance=lambda: HALF)
    await sender.tick()
    await sender.drained()
    await closed.close()
    one = await only(post, hook.no)
    assert one.last_status is None and "127" not in (one.last_error or "") and post.receiver.requests == []


# --- endpoints -----------------------------------------------------------------------------------------------------


async def test_secrets_are_shown_once_and_stored_sealed(post: Post) -> None:
    hook = await post.listen(STARTED, secret="webhook-secret")
    assert hook.secret == "webhook-secret"
    caller = post.world.caller
    assert (await post.webhooks.get(caller, hook.no)).secret is None
    assert [one.secret for one in await post.webhooks.all(caller)] == [None]
    assert (await post.webhooks.update(caller, hook.no, Wanted(events=["*"]))).secret == "webhook-secret"
    row = await post.world.admin.fetchrow("select secret, former_secret from webhook")
    assert row is not None
    assert b"webhook-secret" not in bytes(row["secret"]) and row["former_secret"] is None
    lines = await post.world.admin.fetch("select action, detail from audit_line where action like 'webhook.%'")
    assert {line["action"] for line in lines} == {"webhook.create", "webhook.update"}
    assert not any("webhook-secret" in (line["detail"] or "") for line in lines)


async def test_a_replaced_secret_signs_for_a_day(post: Post) -> None:
    hook = await post.listen(STARTED)
    caller = post.world.caller
    new = await post.webhooks.rotate(caller, hook.no)
    assert new.secret not in (None, hook.secret)

    async def signatures() -> list[str]:
        await happened(post)
        await post.sent()
        request = post.receiver.requests[-1]
        signed = [
            standardwebhooks.Webhook(secret or "").sign(
                header(request, "webhook-id") or "", post.world.clock.now(), request.body.decode()
            )
            for secret in (new.secret, hook.secret)
        ]
        sent = (header(request, "webhook-signature") or "").split(" ")
        return ["new" if one == signed[0] else "old" if one == signed[1] else "?" for one in sent]

    assert await signatures() == ["new", "old"]
    post.world.clock.advance(timedelta(hours=24).total_seconds() - 1)
    assert await signatures() == ["new", "old"]
    post.world.clock.advance(1)
    assert await signatures() == ["new"]


async def test_secrets_are_sealed_anew_when_the_platforms_secret_changes(
    post: Post, db, clock, ids, tenants, poster, settings
) -> None:
    import dataclasses

    from jobs.doorbell import NoDoorbell
    from tenants.keys import Keys

    hook = await post.listen(STARTED)
    await post.webhooks.rotate(post.world.caller, hook.no)
    turned = dataclasses.replace(settings, secret="n" * 40, secret_previous=settings.secret)
    old = tenants.keys
    tenants.keys = Keys(turned)
    try:
        service = WebhookService(db, clock, ids, tenants, poster, NoDoorbell())
        assert await service.renew_secrets() == 1
        assert await service.renew_secrets() == 0
        tenants.keys = Keys(dataclasses.replace(turned, secret_previous=""))
        service = WebhookService(db, clock, ids, tenants, poster, NoDoorbell())
        assert (await service.update(post.world.caller, hook.no, Wanted())).secret is not None
    finally:
        tenants.keys = old


@pytest.mark.parametrize(
    "wanted",
    [
        {"url": None},
        {"url": 3},
        {"url": ""},
        {"url": "https://x.example/" + "a" * 2048},
        {"url": "ftp://example.com/"},
        {"url": "http://93.184.216.34/"},
        {"url": "https://user:word@example.com/"},
        {"url": "https://10.0.0.1/"},
        {"url": "https://[::ffff:10.0.0.1]/"},
        {"url": "https://[64:ff9b::7f00:1]/"},
        {"url": "https://exa mple.com/"},
        {"url": "https://93.184.216.34:22/"},
        {"events": []},
        {"events": ["nonsense"]},
        {"format": "xml"},
        {"active": 1},
        {"secret": "x" * 7},
        {"secret": 5},
    ],
)
async def test_what_is_refused_when_written(post: Post, wanted: dict[str, Any]) -> None:
    given = {"url": post.receiver.url("/hook"), "events": ["*"]} | wanted
    with pytest.raises(InvalidRequest) as refused:
        await post.webhooks.create(post.world.caller, Wanted(**given))
    [field] = wanted
    assert refused.value.pointer == f"/{field}" and refused.value.message.startswith(field)
    hook = await post.listen(STARTED)
    if wanted != {"url": None}:  # null leaves it as it is
        with pytest.raises(InvalidRequest):
            await post.webhooks.update(post.world.caller, hook.no, Wanted(**wanted))


async def test_fifty_endpoints_and_no_more(post: Post) -> None:
    from tenants.errors import LimitReached

    hooks = [await post.listen(STARTED) for _ in range(49)]
    made = await asyncio.gather(*(post.listen(STARTED) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(one, LimitReached) for one in made) == 3
    await post.webhooks.delete(post.world.caller, hooks[0].no)
    await post.listen(STARTED)


async def test_a_deleted_endpoint_is_gone_with_all_it_had(post: Post) -> None:
    hook = await post.listen(STARTED)
    await happened(post, 3)
    caller = post.world.caller
    await post.webhooks.delete(caller, hook.no)
    await post.sent()
    assert post.receiver.requests == []
    for call in (
        post.webhooks.get(caller, hook.no),
        post.webhooks.delete(caller, hook.no),
        post.webhooks.update(caller, hook.no, Wanted()),
        post.webhooks.rotate(caller, hook.no),
        post.webhooks.deliveries(caller, hook.no, limit=1),
    ):
        with pytest.raises(WebhookNotFound):
            await call
    number = await post.world.admin.fetchval("select min(no) from webhook_delivery")
    assert isinstance(number, int)
    with pytest.raises(DeliveryNotFound):
        await post.webhooks.redeliver(caller, number)
    retire = RetireDeliveries(post.db, post.world.clock)
    while await retire.tick():
        pass
    assert await post.world.admin.fetchval("select count(*) from webhook_delivery") == 0
    assert await post.world.admin.fetchval("select count(*) from webhook") == 0


async def test_outlived_deliveries_are_removed(post: Post) -> None:
    hook = await post.listen(STARTED)
    await happened(post)
    await post.sent()
    post.receiver.answer("/hook", b"", "410 Gone")
    await happened(post)
    await post.sent()
    retire = RetireDeliveries(post.db, post.world.clock)

    async def left() -> list[DeliveryStatus]:
        while await retire.tick():
            pass
        return [one.status for one in (await post.webhooks.deliveries(post.world.caller, hook.no, limit=10))[0]]

    assert await left() == [DeliveryStatus.DEAD, DeliveryStatus.DELIVERED]
    post.world.clock.advance(timedelta(days=3).total_seconds())
    assert await left() == [DeliveryStatus.DEAD]
    post.world.clock.advance(timedelta(days=27).total_seconds() - 1)
    assert await left() == [DeliveryStatus.DEAD]
    post.world.clock.advance(1)
    assert await left() == []


async def test_endpoints_of_others_are_not_there(post: Post, make_world) -> None:
    hook = await post.listen(STARTED)
    await happened(post)
    stranger = (await make_world("theirs")).caller
    number = (await only(post, hook.no)).no
    assert await post.webhooks.all(stranger) == []
    for call in (
        post.webhooks.get(stranger, hook.no),
        post.webhooks.delete(stranger, hook.no),
        post.webhooks.update(stranger, hook.no, Wanted()),
        post.webhooks.deliveries(stranger, hook.no, limit=1),
    ):
        with pytest.raises(WebhookNotFound):
            await call
    with pytest.raises(DeliveryNotFound):
        await post.webhooks.redeliver(stranger, number)
    with pytest.raises(DeliveryNotFound):
        await post.webhooks.redeliver(post.world.caller, number, webhook_no=hook.no + 1)

"""Versions of scripts that nobody can come back to go; every other one stays, and numbers stay as they were."""

from __future__ import annotations

import pytest

from tenants.limits import SCRIPT_VERSIONS_KEPT
from versions.deployments import pruning
from versions.deployments.pruning import PruneScripts
from versions.service import VersionService

from .test_deployment_routes import MODULES, ROOT, Checker, deploy, deployed, upload_version
from .test_script_routes import METADATA, upload

DAY = 86_400


@pytest.fixture
def versions(db, clock, ids, tenants) -> VersionService:
    return VersionService(db, clock, ids, tenants, checker=Checker())


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Three versions are kept instead of a hundred."""
    store = pruning.store
    monkeypatch.setattr(store, "PRUNE", store.PRUNE.replace(str(SCRIPT_VERSIONS_KEPT), "3"))


@pytest.fixture
def prune(db, clock) -> PruneScripts:
    return PruneScripts(db, clock)


async def numbers(api) -> list[int]:
    items = (await api("GET", f"{ROOT}/versions?per_page=100"))[1]["items"]
    return [item["number"] for item in items]


async def test_the_latest_versions_stay_and_keep_their_numbers(api, prune, clock):
    made = [(await upload_version(api, modules=MODULES))[1] for _ in range(6)]
    await prune.tick()
    assert await numbers(api) == [6, 5, 4, 3, 2, 1], "none is a day old"
    clock.advance(DAY + 1)
    await prune.tick()
    assert await numbers(api) == [6, 5, 4]
    assert (await api("GET", f"{ROOT}/versions/{made[0]['id']}"))[0] == 404
    assert (await upload_version(api, modules=MODULES))[1]["number"] == 7


async def test_what_is_deployed_or_was_lately_stays(api, prune, clock):
    made = [(await upload_version(api, modules=MODULES))[1]["id"] for _ in range(8)]
    for version in (made[0], made[1], made[2], made[3], made[1]):
        await deploy(api, version)
    clock.advance(DAY + 1)
    for _ in range(2):  # what an old deployment named goes after it
        await prune.tick()
    assert await numbers(api) == [8, 7, 6, 4, 3, 2]
    assert await deployed(api) == made[1]
    shown = (await api("GET", f"{ROOT}/deployments"))[1]["deployments"]
    assert [each["versions"][0]["version_id"] for each in shown] == [made[1], made[3], made[2]]


async def test_what_a_workflow_runs_stays(api, prune, clock, db, boss):
    await upload(api, modules=MODULES)
    await api("PUT", "/workflows/w", json={"script_name": "worker", "class_name": "Flow"})
    for _ in range(5):
        await upload(api, modules=MODULES)
    clock.advance(DAY + 1)
    for _ in range(2):
        await prune.tick()
    assert await numbers(api) == [6, 5, 4, 1]


async def test_secrets_changed_again_and_again_leave_few_versions(api, prune, clock):
    await upload(api, modules=MODULES)
    for n in range(10):
        await api("PUT", f"{ROOT}/secrets", json={"name": "KEY", "text": str(n), "type": "secret_text"})
    clock.advance(DAY + 1)
    for _ in range(2):
        await prune.tick()
    assert await numbers(api) == [11, 10, 9]


async def test_a_deleted_script_goes_whole_and_its_name_begins_anew(api, prune, clock, admin, boss):
    for _ in range(2):
        await upload(api, metadata=METADATA, modules=MODULES)
    await api("DELETE", ROOT)
    clock.advance(DAY + 1)
    assert (await upload_version(api, modules=MODULES))[1]["number"] == 1
    await prune.tick()
    assert await admin.fetchval("select count(*) from script where account_id = $1", boss.account_id) == 1
    assert await numbers(api) == [1]


async def test_a_few_at_a_time_all_round(api, prune, clock, admin, monkeypatch):
    monkeypatch.setattr(pruning, "SCRIPTS", 2)
    monkeypatch.setattr(pruning, "VERSIONS", 2)
    for name in ("a", "b", "c"):
        for _ in range(6):
            await upload_version(api, modules=MODULES, name=name)
    clock.advance(DAY + 1)
    left: list[dict[str, int]] = []
    for _ in range(7):
        await prune.tick()
        rows = await admin.fetch("select name, count(*) as n from script group by 1 order by 1")
        left.append({row["name"]: row["n"] for row in rows})
    assert sum(left[0].values()) == 16
    assert left[-1] == {"a": 3, "b": 3, "c": 3}

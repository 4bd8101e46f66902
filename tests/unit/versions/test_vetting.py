"""Names in URLs are resolved when a definition is written, and what leads inside is named where it stands."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from versions.errors import DocumentInvalid
from versions.sources import document_source
from versions.vetting import vetted

ACCOUNT = UUID(int=7)
INSIDE = "must lead to an address that may be called"


class Vet:
    """Names with `inside` in them lead inside; keeps what it was asked, and how many at once."""

    def __init__(self):
        self.asked = []
        self.asking = self.most = 0

    async def __call__(self, url, *, lane):
        self.asked.append((url, lane))
        self.asking += 1
        self.most = max(self.most, self.asking)
        await asyncio.sleep(0)
        self.asking -= 1
        return INSIDE if "inside" in url else None


@pytest.fixture
def vet():
    return Vet()


async def compiled(vet, *nodes, **form):
    def compile(rule):
        definition = {"spec": "workflow/1", "nodes": list(nodes)}
        return document_source(
            definition, "flow", datetime(2026, 1, 1, tzinfo=UTC), known_handlers=(), check_url=rule, **form
        )

    def check(url):
        return "must start with https://" if url.startswith("http:") else None

    return await vetted(compile, check, vet, ACCOUNT)


def call(id, url, **fields):
    return {"id": id, "type": "call_api", "config": {"url": url}, **fields}


async def problems(vet, *nodes, **form):
    with pytest.raises(DocumentInvalid) as caught:
        await compiled(vet, *nodes, **form)
    return [(problem.pointer, problem.message) for problem in caught.value.problems]


async def test_names_that_lead_outside_pass(vet):
    source = await compiled(vet, call("a", "https://one.example/"), call("b", "https://two.example/"))
    assert source.source
    assert vet.asked == [("https://one.example/", ACCOUNT), ("https://two.example/", ACCOUNT)]
    assert vet.most == 2, "all at once"


async def test_names_that_lead_inside_are_problems_in_their_place(vet):
    undo = {"type": "call_api", "config": {"url": "https://undo.inside/"}}
    found = await problems(
        vet,
        call("a", "https://fine.example/"),
        call("b", "https://db.inside/"),
        call("c", "https://fine.example/", compensate=undo),
        pointer="/definition",
    )
    assert found == [
        ("/definition/nodes/1/config/url", f"nodes/1/config/url {INSIDE}"),
        ("/definition/nodes/2/compensate/config/url", f"nodes/2/compensate/config/url {INSIDE}"),
    ]
    assert len(vet.asked) == 3, "each URL once"


async def test_they_are_problems_among_others(vet):
    found = await problems(
        vet, call("a", "http://plain.example/"), call("b", "https://db.inside/"), call("b", "https://fine.example/")
    )
    assert [pointer for pointer, _ in found] == ["/nodes/0/config/url", "/nodes/1/config/url", "/nodes/2/id"]
    assert [url for url, _ in vet.asked] == ["https://db.inside/", "https://fine.example/"]


async def test_pointers_are_those_of_what_the_user_wrote(vet):
    found = await problems(
        vet, call("a", "https://db.inside/"), pointer="/body", noun="task", locate=lambda path: ("tasks", *path[1:])
    )
    assert found[0][0] == "/body/tasks/0/config/url"


async def test_templates_are_left_to_the_run(vet):
    await compiled(vet, call("a", "https://{{ trigger.host }}/inside"))
    assert vet.asked == []


async def test_other_problems_are_still_problems(vet):
    assert [pointer for pointer, _ in await problems(vet, call("a", "https://fine.example/"), {"id": "a"})] == [
        "/nodes/1/id"
    ]

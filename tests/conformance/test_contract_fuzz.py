"""The whole API against its contract, with requests made up from it: valid ones, broken ones, and by anybody.

Whatever is sent, the answer is one the contract documents, and never a failure of ours. Each operation gets requests
for each rule of its schemas, and `MILLRACE_FUZZ_EXAMPLES` of any kind. They are the same in every run.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as generation
from hypothesis.errors import HypothesisException
from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoverageScenario
from schemathesis.specs.openapi import checks

from app.composition import Platform
from app.contract import contract
from app.embedded.valkey import EmbeddedValkey
from app.faces.registry import face_of
from app.middleware.paths import PREFIX
from tests.support import belongings, openapi
from tests.support.api import client_of
from tests.support.belongings import Belongings
from tests.support.databases import Databases
from tests.support.live import settings_for_tests

EXAMPLES = int(os.environ.get("MILLRACE_FUZZ_EXAMPLES", "8"))
PUBLIC = {"/healthz", "/readyz", "/openapi.yaml", "/openapi.json", "/hooks/{token}"}
STRANGERS: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer sk_0000000000000000000000000000000000000000"},
    {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
    {"authorization": "Basic Og=="},
    {"authorization": "Bearer"},
    {"cookie": "millrace_session=x"},
    {"x-auth-key": "\xff", "x-auth-email": "a@example.org"},
]
ODD = ["0", "x", "-1", "9" * 40, "\u00e9 \U0001f600", "a\0b", "a/b", "..", "%2e", "i" * 3000, "NaN", "{id}", "'"]
DOTS = {"..", "%2e"}
"""Of these, clients make another path: that of a stream which is there, and does not end."""
EVERY_HEALTH_CHECK: Any = list(HealthCheck)
OPERATIONS = [
    pytest.param(method, path, id=operation["operationId"])
    for (method, path), operation in openapi.operations().items()
]
SCHEMA = schemathesis.openapi.from_dict(contract())


def streams(method: str, path: str) -> bool:
    """Whether a good request is answered with a stream, which does not end."""
    answers = openapi.operations()[method, path]["responses"]
    return any("text/event-stream" in answer.get("content", {}) for answer in answers.values())


async def nowhere(_host: str, _port: int) -> list[str]:
    """A resolver without a network."""
    raise OSError("no such host")


@pytest.fixture(scope="module")
async def platform(databases: Databases, valkey: EmbeddedValkey) -> AsyncIterator[Platform]:
    """Nothing runs here, nobody is waited for, and no name leads anywhere."""
    async with settings_for_tests(databases, valkey, run_wait=0) as settings, Platform(settings).opened() as platform:
        platform.egress._names._resolve = nowhere
        yield platform


@pytest.fixture(scope="module")
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """Answers are held to the contract by the test, which knows the operation."""
    async with client_of(platform.settings, platform, checked=False) as client:
        yield client


@pytest.fixture(scope="module")
async def readable(platform: Platform, http: httpx.AsyncClient) -> Belongings:
    """Nothing comes to this account: a stream of something odd would not end, if it were there."""
    return await belongings.make(platform, http)


@pytest.fixture(scope="module")
async def writable(platform: Platform, http: httpx.AsyncClient) -> Belongings:
    """For what changes nothing that is there."""
    return await belongings.make(platform, http)


def cases(method: str, path: str, mode: GenerationMode, count: int, names: dict[str, str] | None) -> list[Case]:
    """Up to `count` requests for an operation, the same every time; fewer where there are no more."""
    found: list[Case] = []
    strategy = SCHEMA[path][method].as_strategy(generation_mode=mode, path_parameters=names)

    @generation(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=EVERY_HEALTH_CHECK,
    )
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    try:
        collect()
    except HypothesisException:
        assert mode is GenerationMode.NEGATIVE  # there is no wrong way to send this one
    return found


def cases_by_rule(method: str, path: str, names: dict[str, str]) -> Iterator[Case]:
    """For each rule of the schemas of query and body: requests at its edges, and one that breaks just this one."""
    operation = SCHEMA[path][method]
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    config = SCHEMA.config.generation_for(operation=operation)
    for case in SCHEMA.iter_coverage_cases(operation=operation, generation_modes=modes, generation_config=config):
        about: Any = case.meta.phase.data if case.meta else None
        unknown = about.scenario is CoverageScenario.OBJECT_UNEXPECTED_PROPERTIES
        if case.method != method or (unknown and about.parameter_location is ParameterLocation.QUERY):
            continue  # no query is refused for what nobody asked for, and schemas do not say so
        if about.parameter_location in (ParameterLocation.QUERY, ParameterLocation.BODY):
            case.path_parameters = {**case.path_parameters, **names}
            yield case


def requests_for(method: str, path: str, names: dict[str, str]) -> Iterator[tuple[Case, bool]]:
    """Cases, and whether they are sent with a good credential."""
    known = {name: names[name] for name in names if f"{{{name}}}" in path}
    valid = cases(method, path, GenerationMode.POSITIVE, max(EXAMPLES // 2, 1), known)
    if not streams(method, path):
        yield from ((case, True) for case in valid)
        yield from ((case, True) for case in cases_by_rule(method, path, known))
        yield from ((case, True) for case in cases(method, path, GenerationMode.NEGATIVE, EXAMPLES // 2, known))
    odd = [each for each in ODD if each not in DOTS] if streams(method, path) else ODD
    for number, case in enumerate(valid):
        yield case, False
        if known:
            yield _elsewhere(case, odd[number % len(odd)]), True


def _elsewhere(case: Case, odd: str) -> Case:
    """The same request for something that is not there, or has an odd name."""
    names = dict(case.path_parameters)
    last = next(reversed(names))
    return SCHEMA[case.operation.path][case.operation.method].Case(
        path_parameters=names | {last: odd},
        headers=dict(case.headers),
        query=case.query,
        body=case.body,
        media_type=case.media_type,
    )


async def send(http: httpx.AsyncClient, case: Case, headers: dict[str, str]) -> httpx.Response:
    """Send a case as it is: what is no header or no URL is not sent at all."""
    sent = case.as_transport_kwargs("http://millrace.test" + base(case.operation.path), headers)
    prepared = requests.Request(**sent).prepare()
    body: Any = prepared.body
    sent_headers = [(name.encode("latin-1"), _bytes(value)) for name, value in prepared.headers.items()]
    return await http.request(prepared.method or "", prepared.url or "", headers=sent_headers, content=body)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")


def base(path: str) -> str:
    return "" if path in PUBLIC or face_of(path) else PREFIX


def unhurried(case: Case) -> bool:
    """Have a case not wait for the end of what it starts: nothing ends here. Whether that changed it."""
    changed = False
    if isinstance(case.query, dict) and re.fullmatch(r"[1-9]\d?", str(case.query.get("wait"))):
        case.query["wait"] = "0"
        changed = True
    options = case.body.get("options") if isinstance(case.body, dict) else None
    if isinstance(options, dict) and options.get("waitForCompletion") is True:
        options["waitForCompletion"] = False
        changed = True
    return changed


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_every_answer_is_documented(
    platform: Platform,
    http: httpx.AsyncClient,
    readable: Belongings,
    writable: Belongings,
    method: str,
    path: str,
) -> None:
    if method == "GET":
        owner = readable
    elif "{" in path.replace("{account_id}", ""):
        owner = await belongings.make(platform, http)  # which it may end
    else:
        owner = writable
    problems: list[str] = []
    for number, (case, known) in enumerate(requests_for(method, path, owner.names(path))):
        changed = unhurried(case)
        headers = owner.tenant.headers if known else STRANGERS[number % len(STRANGERS)]
        answer = await send(http, case, headers)
        if problem := broken_by(answer, case, strict=not changed):
            problems.append(f"{describe(answer)}\n    {problem}")
    assert not problems, "\n".join([f"{len(problems)} answers", *problems[:5]])


def broken_by(answer: httpx.Response, case: Case, *, strict: bool) -> str | None:
    """How an answer breaks the contract. `strict`: what was made to be refused has to be."""
    if answer.status_code >= 500:
        return f"{answer.status_code}: {answer.text}"
    if not _is_in_the_contract(answer.request.method, answer.request.url.raw_path.split(b"?")[0].decode()):
        return None if answer.status_code in (404, 405) else answer.text  # an odd name led out of the contract
    try:
        openapi.check(answer)
        held_to = [checks.response_headers_conformance]
        if strict:
            held_to.append(checks.negative_data_rejection)
        case.validate_response(answer, checks=held_to)
    except (AssertionError, BaseExceptionGroup) as error:
        return str(getattr(error, "exceptions", (error,))[0])
    return None


def describe(answer: httpx.Response) -> str:
    request = answer.request
    return f"{request.method} {request.url} {dict(request.headers)} {request.content[:500]!r} -> {answer.text[:300]}"


async def test_methods_a_path_does_not_have(http: httpx.AsyncClient, readable: Belongings) -> None:
    for path in contract()["paths"]:
        url = base(path) + path.format(**readable.names(path))
        has = {method for method in openapi.METHODS if method in contract()["paths"][path]}
        for method in {*openapi.METHODS, "trace"} - has:
            if method != "trace" and _is_in_the_contract(method, url):
                continue
            answer = await http.request(method, url, headers=readable.tenant.headers)
            allowed = {each.strip().lower() for each in answer.headers.get("allow", "").split(",")}
            assert (answer.status_code, has <= allowed) == (405, True), (method, url, answer.text, allowed)


def _is_in_the_contract(method: str, url: str) -> bool:
    """Whether some path template with this method fits."""
    try:
        openapi.find(method.upper(), url)
    except AssertionError:
        return False
    return True

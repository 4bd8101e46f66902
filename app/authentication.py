"""Who is calling, decided before the request's body is read, by the rules of the face the route belongs to.

A middleware rather than a dependency or a guard: Litestar reads the body before dependencies, and copies the handler
for every guard. It serves WebSocket upgrades, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import structlog
from litestar import Request
from litestar.types import ASGIApp, Receive, Scope, Send

from app.composition import Platform
from app.errors import NoRoute, NotAuthenticated
from app.origins import allowed_origins
from app.settings import Settings
from tenants.auth import Caller, credentials_in, require_one_account
from tenants.authentication import TOKEN
from tenants.errors import CrossSite, RequestRateExceeded
from tenants.ids import parse_account_id
from tenants.rates import RequestRate
from tenants.service import TenantService
from tenants.sessions import cookie_in
from tenants.token_text import PREFIX

CALLER = "caller"
RATE = "rate"
"""Where in the scope the :class:`RequestRate` of a counted request is, for faces that show it."""
IN_QUERY = "Authentication error: a token must not be part of a URL; send it in a header"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_READ = frozenset(
    {
        b"authorization",
        b"x-auth-key",
        b"cookie",
        b"x-account-id",
        b"origin",
        b"host",
        b"sec-fetch-site",
        b"content-type",
        b"x-requested-with",
        b"apollo-require-preflight",
    }
)
_NEED_PREFLIGHT = ("x-requested-with", "apollo-require-preflight")

Kind = Literal["header", "token", "jwt", "cookie"]
"""`header` is any credential in a header; `token` and `jwt` tell API tokens and JWTs in headers apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class CredentialRules:
    """Which credentials a face accepts, the ones that count first in front. Routes with the option `accepts_ticket`
    take a stream ticket behind these."""

    order: tuple[Kind, ...] = ("header",)
    account_header: bool = False
    """Whether `x-account-id` picks another account of the same person."""
    guards_reads: bool = False
    """Whether reading with a cookie has to show that it is not cross-site, too (GraphQL takes queries by GET)."""


CLOUDFLARE = CredentialRules()
MEDUSA = CredentialRules(order=("token", "cookie", "jwt"), account_header=True)
JOBSPRINT = CredentialRules(account_header=True)
ORCHESTRATION = CredentialRules(account_header=True)
GRAPHQL = CredentialRules(order=("header", "cookie"), account_header=True, guards_reads=True)
WORKSPACES = CredentialRules(order=("header", "cookie"))


class Authenticate:
    """Puts the :class:`Caller` into `scope[CALLER]`; handlers get it as the dependency `caller`.

    Raises what :meth:`Credentials.caller` does; :class:`app.errors.NoRoute` when the path names an account that is not
    the caller's; and :class:`RequestRateExceeded`, with the rate in `scope[RATE]`. Routes with the option
    `authenticates_itself` (logins, and token verification, which answers for tokens that are no longer accepted) are
    let through without a caller.
    """

    def __init__(self, app: ASGIApp, platform: Platform, rules: CredentialRules = CLOUDFLARE) -> None:
        self._app = app
        self._platform = platform
        self._credentials = Credentials(platform, rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        options = scope["route_handler"].opt
        if scope.get("method") == "OPTIONS" or options.get("authenticates_itself"):
            refuse_tokens_in(scope)
            await self._app(scope, receive, send)
            return
        caller = await self._credentials.caller(scope, accepts_ticket=bool(options.get("accepts_ticket")))
        account_id = scope["path_params"].get("account_id")
        if account_id is not None:
            caller = await self._in_path(caller, account_id)
        structlog.contextvars.bind_contextvars(account=caller.account_id.hex)
        scope[CALLER] = caller  # type: ignore[typeddict-unknown-key]
        await count(self._platform.tenants, caller, scope)
        await self._app(scope, receive, send)

    async def _in_path(self, caller: Caller, account_id: str) -> Caller:
        named = parse_account_id(account_id)
        if named is not None and caller.login_id is not None:
            caller = await self._platform.tenants.logins.in_account(caller, named)
        caller.owns(account_id)
        return caller


class Credentials:
    """Finds the caller of a request or a WebSocket upgrade."""

    def __init__(self, platform: Platform, rules: CredentialRules) -> None:
        self._platform = platform
        self._rules = rules

    async def caller(self, scope: Any, *, accepts_ticket: bool = False) -> Caller:
        """Whoever the credentials of a request belong to.

        A credential in a header that is not accepted fails the request, unless a cookie that counts before it was;
        cookies and tickets outlive their time in browsers and are passed over. Raises :class:`NotAuthenticated`;
        :class:`InvalidRequest` when two accepted credentials belong to different accounts; :class:`CrossSite`;
        :class:`NoRoute` for an `x-account-id` the caller has no part in.
        """
        refuse_tokens_in(scope)
        headers = _headers(scope)
        found: list[tuple[bool, Caller]] = []
        for strict, by_cookie, resolve in self._presented(scope, headers, accepts_ticket):
            try:
                found.append((by_cookie, await resolve()))
            except NotAuthenticated:
                if strict and not any(earlier for earlier, _ in found):
                    raise
        if not found:
            raise NotAuthenticated()
        require_one_account(caller for _, caller in found)
        caller = found[0][1]
        if all(by_cookie for by_cookie, _ in found):
            self._refuse_cross_site(scope, headers)
        if self._rules.account_header and (picked := headers.get("x-account-id")) is not None:
            caller = await in_account(self._platform.tenants, caller, picked)
        return caller

    def _presented(
        self, scope: Any, headers: dict[str, str], accepts_ticket: bool
    ) -> Iterable[tuple[bool, bool, Callable[[], Awaitable[Caller]]]]:
        """What the request carries, in the face's order: whether it must be good, whether it is a cookie, and how to
        find whose it is."""
        tenants = self._platform.tenants
        for kind in self._rules.order:
            if kind == "cookie":
                if "cookie" in headers and (value := cookie_in(headers["cookie"])):
                    yield False, True, lambda value=value: tenants.sessions.resolve(value)
                continue
            for text in credentials_in(headers):
                if kind == "header" or (kind == "token") == text.startswith(PREFIX):
                    yield True, False, lambda text=text: tenants.authenticate(text)
        if accepts_ticket and (ticket := _ticket_in(scope)):
            yield False, False, lambda: tenants.tickets.redeem(ticket, scope["path"])

    def _refuse_cross_site(self, scope: Any, headers: dict[str, str]) -> None:
        """Raise :class:`CrossSite` for a request that another site's page could have had the browser make."""
        upgrade = scope["type"] == "websocket"
        if not upgrade and scope["method"] in _SAFE and not self._rules.guards_reads:
            return
        if headers.get("sec-fetch-site") == "same-origin" or self._ours(headers):
            return
        if not upgrade and (_is_json(headers) or any(name in headers for name in _NEED_PREFLIGHT)):
            return
        raise CrossSite(
            "Authentication error: with a session cookie, show that the request comes from a page of ours: send Origin,"
            " Content-Type: application/json or X-Requested-With"
        )

    def _ours(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin", "").lower()
        if not origin or origin == "null":
            return False
        settings: Settings = self._platform.settings
        if origin in allowed_origins(settings.cors_origins):
            return True
        if settings.public_url:
            public = urlsplit(settings.public_url.lower())
            return origin == f"{public.scheme}://{public.netloc}"
        return origin.partition("://")[2] == headers.get("host", "").lower()


async def authenticate_bearer(tenants: TenantService, text: str) -> Caller:
    """The caller of a credential that came in a message: an `Authorization` header's value, or a bare token or JWT.

    Raises :class:`NotAuthenticated`.
    """
    bare = " " not in text.strip()
    credentials = [text.strip()] if bare else credentials_in({"authorization": text})
    if not credentials:
        raise NotAuthenticated()
    return await tenants.authenticate(credentials[0])


async def in_account(tenants: TenantService, caller: Caller, text: str) -> Caller:
    """The same person in the account an `x-account-id` names. Raises :class:`NoRoute` when they have no part in it."""
    account_id = parse_account_id(text)
    if account_id is None:
        raise NoRoute()
    return await tenants.logins.in_account(caller, account_id)


def secure_cookies(settings: Settings) -> bool:
    """Whether cookies are for https only: always but in a `millrace dev` installation."""
    return settings.data_dir is None


async def count(tenants: TenantService, caller: Caller, scope: Any) -> None:
    """Count a request against its credential's limit, when there is one. Raises :class:`RequestRateExceeded`."""
    rate = await tenants.count_request(caller)
    if rate is None:
        return
    scope[RATE] = rate
    if rate.retry_after is not None:
        raise RequestRateExceeded(retry_after=rate.retry_after)


def rate_of(scope: Any) -> RequestRate | None:
    """How the credential of a request stands with its limit; None when it has none, or nobody was recognised."""
    return scope.get(RATE)


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The dependency `caller`."""
    return request.scope[CALLER]  # type: ignore[typeddict-item]


def refuse_tokens_in(scope: Any) -> None:
    """Raise :class:`NotAuthenticated` when the query holds an API token, as a name or a value: URLs are logged."""
    query: bytes = scope.get("query_string", b"")
    if b"sk_" not in query and b"%" not in query:
        return
    for pair in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if any(TOKEN.fullmatch(text) for text in pair):
            raise NotAuthenticated(IN_QUERY)


def _headers(scope: Any) -> dict[str, str]:
    """The headers this module reads. Of repeated ones the first counts, but cookies may come in several."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            if key == "cookie" and key in headers:
                headers[key] += f"; {text}"
            else:
                headers.setdefault(key, text)
    return headers


def _ticket_in(scope: Any) -> str | None:
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
    return next((value for name, value in query if name == "ticket"), None)


def _is_json(headers: dict[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"

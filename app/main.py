"""The HTTP application: routes of every package under one roof.

`uvicorn --factory app.main:create_app` serves it; `millrace serve` does so with the right options. What happens to a
request, from the outside in: :class:`~app.middleware.gateway.Gateway` (request id, path, limits, compression, access
log), CORS if configured, routing, authentication, the handler; errors become answers of the face in `app.refusals`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp
from litestar.utils import normalize_path

from app import contract, health
from app.authentication import Authenticate, caller_of
from app.composition import Platform
from app.errors import MethodNotAllowed, NoRoute
from app.faces.registry import FACES, face_of
from app.failures import understand
from app.health import ReadinessCheck
from app.middleware.clients import Proxies
from app.middleware.gateway import Gateway, RequestIds
from app.middleware.paths import PREFIX, RestoreInstanceId
from app.observability.logging import configure_logging
from app.observability.tracing import traced
from app.origins import EVERY, allowed_origins
from app.refusals import Refusals
from app.settings import Settings, SettingsError, load_settings
from instances.routes import route_handlers as instance_routes
from instances.triggers.routes import receive_hook
from instances.triggers.routes import route_handlers as trigger_routes
from tenants.routes import route_handlers as tenant_routes
from versions.routes import route_handlers as version_routes

_CORS_HEADERS = [
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "prefer",
    "x-account-id",
    "x-medusa-locale",
    "x-publishable-api-key",
    "x-request-id",
    "x-requested-with",
]
"""Headers that clients in browsers send, those of Medusa's included."""
_CORS_EXPOSED = [
    "x-request-id",
    "retry-after",
    "x-should-retry",
    "idempotent-replayed",
    "x-count-capped",
    "x-total-count",
    "link",
    "location",
    "api-version",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-transaction-id",
    "x-workflow-execution-id",
]

_NO_METHOD: Any = "-"
"""A method no route has: the router's refusal names those it has."""


def create_app(settings: Settings | None = None, *, platform: Platform | None = None) -> Litestar:
    """The application. Without `settings` it is on its own: settings and logging come from the environment.

    With a `platform` that is open already (one process that is API and worker), the caller opens and closes it;
    otherwise the application does so with its lifespan. Raises :class:`SettingsError`.
    """
    if settings is None:
        settings = platform.settings if platform is not None else load_settings()
        if platform is None:
            configure_logging(settings)
    owned = platform is None
    platform = platform or Platform(settings)
    refusals = Refusals(lambda: platform.clock.now())
    app = Litestar(
        route_handlers=[
            *health.route_handlers,
            *contract.route_handlers,
            receive_hook,
            _cloudflare_face(platform),
            *(router for face in FACES for router in face.routers(platform)),
        ],
        dependencies=_dependencies(platform),
        exception_handlers=refusals.handlers(),
        lifespan=[_lifespan(platform)] if owned else [],
        cors_config=_cors(settings),
        logging_config=None,
        openapi_config=None,
        request_max_body_size=None,  # the gateway's, by route
    )
    _resolve_dependencies_in_turn(app)
    gateway = Gateway(
        traced(app.asgi_handler, "millrace-api"),
        proxies=_proxies(settings),
        request_id=RequestIds(),
        refuse=refusals.answer,
        allowed=_allowed_methods(app),
        headers=_headers_of_faces(platform),
    )
    app.asgi_handler = gateway
    platform.on_drain.append(gateway.streams.end_all)
    return app


def _cloudflare_face(platform: Platform) -> Router:
    # A function, because Litestar copies what it is given, and the platform must not be copied.
    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authenticate(app, platform)

    return Router(
        path=PREFIX,
        route_handlers=[*tenant_routes, *version_routes, *instance_routes, *trigger_routes],
        middleware=[RestoreInstanceId, authenticated],
        dependencies={"caller": Provide(caller_of, sync_to_thread=False)},
    )


def _dependencies(platform: Platform) -> dict[str, Provide]:
    """The services, by the names handlers ask for. They exist once the lifespan has begun, hence the look-ups."""
    readiness = ReadinessCheck(platform)

    def provide(get: Any) -> Provide:
        return Provide(get, sync_to_thread=False)

    return {
        "settings": provide(lambda: platform.settings),
        "clock": provide(lambda: platform.clock),
        "ids": provide(lambda: platform.ids),
        "tenants": provide(lambda: platform.tenants),
        "versions": provide(lambda: platform.versions),
        "deployments": provide(lambda: platform.deployments),
        "instances": provide(lambda: platform.instances),
        "jobs": provide(lambda: platform.jobs),
        "webhooks": provide(lambda: platform.webhooks),
        "readiness": provide(lambda: readiness),
    }


def _resolve_dependencies_in_turn(app: Litestar) -> None:
    """Resolve a handler's dependencies one after the other instead of in a task group.

    All of them are at hand; a task group for two of them costs more (0.1 ms) than the rest of the dispatch together.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                model.dependency_batches = [{one} for batch in model.dependency_batches for one in batch]


def _headers_of_faces(platform: Platform) -> Callable[[Any], dict[str, str]]:
    def headers(scope: Any) -> dict[str, str]:
        face = face_of(scope["path"])
        return {} if face is None else face.headers(scope, platform.clock.now())

    return headers


def _allowed_methods(app: Litestar) -> Callable[[str], str]:
    """What OPTIONS answers. Litestar's own answer forgets methods when a path has several handlers."""

    def allowed(path: str) -> str:
        try:
            app.asgi_router.handle_routing(path=normalize_path(path), method=_NO_METHOD)
        except MethodNotAllowedException as error:
            refused = understand(error)
            return ", ".join(refused.allowed) if isinstance(refused, MethodNotAllowed) else ""
        except NotFoundException:
            pass
        raise NoRoute()

    return allowed


def _lifespan(platform: Platform) -> Any:
    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with platform.opened():
            yield

    return lifespan


def _cors(settings: Settings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    try:
        origins = allowed_origins(settings.cors_origins)
    except ValueError as error:
        raise SettingsError(f"MILLRACE_CORS_ORIGINS: {error}") from None
    return CORSConfig(
        allow_origins=sorted(origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=_CORS_HEADERS,
        expose_headers=_CORS_EXPOSED,
        # Session cookies, for origins that are named; whoever lets all in lets them in without.
        allow_credentials=EVERY not in origins,
        max_age=3600,
    )


def _proxies(settings: Settings) -> Proxies:
    try:
        return Proxies(settings.trusted_proxies)
    except ValueError as error:
        raise SettingsError(f"MILLRACE_TRUSTED_PROXIES: {error}") from None

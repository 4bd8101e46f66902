"""GraphQL at `/graphql`: the objects of the orchestration face, by HTTP, server-sent events and WebSocket."""

from __future__ import annotations

from app.faces.face import Face
from app.faces.orchestration.graphql.refusals import refuse
from app.faces.orchestration.graphql.routes import PREFIXES, routers
from app.faces.rates import seconds_to_go

FACE = Face("graphql", PREFIXES, refuse, routers, lambda scope, _now: seconds_to_go(scope))

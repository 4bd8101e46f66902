"""The Workflow Orchestration API: workflows made of tasks and sync points; its version is negotiated."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.faces.face import Face
from app.faces.orchestration import negotiation
from app.faces.orchestration.refusals import refuse
from app.faces.orchestration.routes import PREFIXES, routers
from app.faces.rates import seconds_to_go


def _headers(scope: Any, _now: datetime) -> dict[str, str]:
    return {"api-version": negotiation.chosen_for(scope).number, "vary": "Accept", **seconds_to_go(scope)}


FACE = Face("orchestration", PREFIXES, refuse, routers, _headers)

"""What clients of each API face read out of their JWT, beside the claims every token has (`tenants.jwts`)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tenants.logins import Person

MEDUSA_LIFETIME = timedelta(days=1)
JOBSPRINT_LIFETIME = timedelta(seconds=900)
ORCHESTRATION_LIFETIME = timedelta(hours=1)


def medusa(person: Person) -> dict[str, Any]:
    """The auth context of Medusa's admin API: claims of its JWTs, and `user` in the answer that opens a session."""
    user = person.user
    return {
        "actor_id": user.id.hex,
        "actor_type": "user",
        "auth_identity_id": user.person_id.hex,
        "auth_provider": "emailpass",
        "app_metadata": {"user_id": user.id.hex, "account_id": user.account_id.hex},
        "user_metadata": {},
    }


def jobsprint(person: Person) -> dict[str, Any]:
    """Claims of a JobSprint access token."""
    return {"email": person.user.email, "role": person.user.role}


def orchestration(person: Person) -> dict[str, Any]:
    """Claims of the Workflow Orchestration API's tokens."""
    return {"id": person.user.id.hex, "username": person.user.name, "role": person.user.role}

"""Which faces there are, and which one a path belongs to."""

from __future__ import annotations

from app.faces import jobsprint, medusa, orchestration, workspaces
from app.faces.face import Face
from app.faces.orchestration import graphql

FACES: tuple[Face, ...] = (jobsprint.FACE, medusa.FACE, workspaces.FACE, orchestration.FACE, graphql.FACE)
"""In the order they are asked whether a path is theirs; whatever none of them owns is the Cloudflare face's."""


def face_of(path: str) -> Face | None:
    """The face a canonical path belongs to; None: the Cloudflare face."""
    return next((face for face in FACES if face.owns(path)), None)

"""The schema."""

from __future__ import annotations

from typing import Any

import strawberry
from graphql import GraphQLSchema
from strawberry.schema.config import StrawberryConfig
from strawberry.utils.str_converters import to_camel_case

from app.faces.orchestration.graphql.mutations import Mutation
from app.faces.orchestration.graphql.queries import Query
from app.faces.orchestration.graphql.scalars import SCALARS
from app.faces.orchestration.graphql.subscriptions import Subscription


def _member(source: Any, name: str) -> Any:
    """A member of a view."""
    return source.get(to_camel_case(name))


TYPED = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(default_resolver=_member, scalar_map=SCALARS),
)
SCHEMA: GraphQLSchema = TYPED._schema
"""What operations are validated against and executed on."""

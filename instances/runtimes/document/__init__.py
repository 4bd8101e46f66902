"""The document runtime: definition documents run as deterministic schedules over their graph.

DocumentRuntime(store, egress)                 a :class:`instances.runtimes.protocol.Runtime`
register_action_handler(name, fn, schema)      custom node types
known_handlers()                               their names, for the validator
"""

from instances.runtimes.document.handlers import (
    ActionContext,
    NonRetryableError,
    known_handlers,
    register_action_handler,
    unregister_action_handler,
)
from instances.runtimes.document.runtime import DocumentRuntime
from instances.runtimes.document.store import ActionStore

__all__ = [
    "ActionContext",
    "ActionStore",
    "DocumentRuntime",
    "NonRetryableError",
    "known_handlers",
    "register_action_handler",
    "unregister_action_handler",
]

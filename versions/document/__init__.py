"""The definition document: one declarative format every face's definitions are compiled to.

parse_document(definition, *, known_handlers=()) -> Document      raises DocumentInvalid(problems)
check_document(definition, *, known_handlers=()) -> Checked       problems and warnings, never raises for content
encode_document(document) -> str, decode_document(text) -> Document
validate_input(document, value)                                   raises InvalidInput
"""

from versions.document.model import (
    Compensate,
    Defaults,
    Document,
    Gate,
    Limits,
    Milestone,
    Node,
    Retries,
    SyncPoint,
    Trigger,
    decode_document,
    encode_document,
)

__all__ = [
    "Compensate",
    "Defaults",
    "Document",
    "Gate",
    "Limits",
    "Milestone",
    "Node",
    "Retries",
    "SyncPoint",
    "Trigger",
    "decode_document",
    "encode_document",
]

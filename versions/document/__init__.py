"""The definition document: one declarative format every face's definitions are compiled to.

parse_document(definition, known_handlers=…)  -> Document      raises DocumentInvalid(problems)
check_document(definition, known_handlers=…)  -> Checked       problems and warnings, raises for neither
encode_document(document) -> str              decode_document(text) -> Document
validate_input(document, value)               raises InvalidInput
"""

from versions.document.input_schema import validate_input
from versions.document.model import (
    NO_INPUT,
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
    document_hash,
    encode_document,
)
from versions.document.parse import Checked, check_document, parse_document

__all__ = [
    "NO_INPUT",
    "Checked",
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
    "check_document",
    "decode_document",
    "document_hash",
    "encode_document",
    "parse_document",
    "validate_input",
]

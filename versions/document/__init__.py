"""The definition document: one declarative format every face's definitions are compiled to.

parse_document(definition, known_handlers=…)  -> Document      raises DocumentInvalid(problems)
check_document(definition, known_handlers=…)  -> Checked       problems and warnings, raises for neither
encode_document(document) -> str              decode_document(text) -> Document
validate_input(document, value)               raises InvalidInput
stored_schema(text), stored_idempotent(text), stored_rolls_back_cancelled(text), stored_triggers(text)
validate_inputs(schema, inputs)
"""

from versions.document.input_schema import (
    stored_idempotent,
    stored_rolls_back_cancelled,
    stored_schema,
    stored_triggers,
    validate_input,
    validate_inputs,
)
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
    document_hash,
    encode_document,
)
from versions.document.parse import Checked, check_document, parse_document

__all__ = [
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
    "stored_idempotent",
    "stored_rolls_back_cancelled",
    "stored_schema",
    "stored_triggers",
    "validate_input",
    "validate_inputs",
]

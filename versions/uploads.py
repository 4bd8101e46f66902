"""Reading a script upload: the multipart body, its metadata, its modules and its bindings.

wrangler sends `metadata` first, as a plain field, and each module under its own name; the SDKs call every module part
`files` and send `metadata` last, as JSON. So a part named `metadata` is that, wherever it stands, and a module's name
is its file name, or else its part's name.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from app.errors import InvalidRequest
from tenants.limits import WORKFLOW_NAME
from versions.errors import ScriptInvalid, UnresolvedBinding

METADATA = "metadata"
MAX_PARTS = 1_000
MAX_NAME = 512
SOURCE_MAP = "application/source-map"
_BINARY = ("application/octet-stream", "application/wasm")
SUPPORTED_BINDINGS = ("plain_text", "json", "secret_text", "workflow", "inherit")
KEPT_TYPES = {"secret_text", "secret_key"}


class Module(msgspec.Struct, frozen=True):
    """One module or source map. `encoding`: `utf-8`, or `base64` for what is not text."""

    name: str
    type: str
    content: str
    encoding: str = "utf-8"

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.content) if self.encoding == "base64" else self.content.encode()


class ScriptLimits(msgspec.Struct, frozen=True):
    """`limits` of the metadata: CPU milliseconds of a step, outgoing requests of an instance."""

    cpu_ms: Annotated[int, msgspec.Meta(ge=1, le=300_000)] | None = None
    subrequests: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] | None = None


_DEFAULT_FROM = {
    "python_workflows_implicit_dependencies": ("2026-02-25", "no_python_workflows_implicit_dependencies"),
    "workflows_preserve_non_retryable_error_message": (
        "2026-05-14",
        "workflows_replace_non_retryable_error_message",
    ),
}
"""Compatibility flags that mean something here, each with the date that turns it on and the flag that turns it off."""
NODE_GLOBALS_FROM = "2024-09-23"
"""The compatibility date from which `nodejs_compat` gives scripts Node's globals, too."""


class Metadata(msgspec.Struct, frozen=True):
    """The keys of `metadata` that mean something here; the whole of it is stored."""

    main_module: str | None = None
    body_part: str | None = None
    bindings: list[dict[str, Any]] = []
    keep_bindings: list[str] = []
    compatibility_date: str | None = None
    compatibility_flags: list[str] = []
    limits: ScriptLimits = ScriptLimits()
    tags: list[str] | None = None
    logpush: bool | None = None
    observability: dict[str, Any] | None = None
    tail_consumers: list[Any] | None = None
    annotations: dict[str, Any] | None = None

    @property
    def flags_in_force(self) -> frozenset[str]:
        """Compatibility flags: those given, and those that are the default from their date on."""
        given = frozenset(self.compatibility_flags)
        since = self.compatibility_date or ""
        if "nodejs_compat" in given and since >= NODE_GLOBALS_FROM and "no_nodejs_compat_v2" not in given:
            given |= {"nodejs_compat_v2"}
        return given | {flag for flag, (date, off) in _DEFAULT_FROM.items() if since >= date and off not in given}


ANNOTATIONS = {"workers/message": 1_000, "workers/tag": 100, "workers/triggered_by": 100, "workers/alias": 100}
"""Annotations of versions and deployments that are kept, and how many characters of each."""


def kept_annotations(annotations: Mapping[str, Any] | None) -> dict[str, str]:
    """Those of `annotations` that are kept, cut where they are too long.

    >>> kept_annotations({"workers/tag": "v1", "workers/message": "", "mine": "x"})
    {'workers/tag': 'v1'}
    """
    given = annotations or {}
    return {
        key: value[:length] for key, length in ANNOTATIONS.items() if isinstance(value := given.get(key), str) and value
    }


class Bindings(msgspec.Struct, frozen=True):
    """`plain`: what may be shown, secrets by name and type only. `secrets`: clear texts of this upload by name.
    `kept`: names of secrets taken over from the upload before."""

    plain: list[dict[str, Any]]
    secrets: dict[str, str]
    kept: frozenset[str] = frozenset()
    unresolved: tuple[str, ...] = ()
    """`inherit` bindings that found nothing and were left out."""


class Upload(msgspec.Struct, frozen=True):
    """A whole upload. `metadata_text` is the metadata as sent, without the clear texts of secrets."""

    metadata: Metadata
    metadata_text: str
    modules: tuple[Module, ...]
    size: int

    @property
    def etag(self) -> str:
        """SHA-256 (hex) over the modules, in order."""
        digest = hashlib.sha256()
        for module in self.modules:
            for part in (module.name.encode(), module.type.encode(), module.data):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    @property
    def main(self) -> Module:
        """The module the script starts with."""
        found = find_module(self.modules, self.metadata.main_module or self.metadata.body_part or "")
        if found is None:
            raise ScriptInvalid("the main module is missing")
        return found


def read_upload(body: bytes, content_type: str) -> Upload:
    """The upload in a `multipart/form-data` body. Raises :class:`InvalidRequest`, :class:`ScriptInvalid`."""
    metadata_part: bytes | None = None
    modules: dict[str, Module] = {}
    size = 0
    for segment, data in _parts(body, content_type):
        if segment.name == METADATA:
            if metadata_part is not None:
                raise ScriptInvalid("the upload has more than one part named metadata")
            metadata_part = data
            continue
        module = _module(segment, data)
        if module.name in modules:
            raise ScriptInvalid(f"the upload has two modules named {module.name!r}")
        modules[module.name] = module
        size += len(data)
    if metadata_part is None:
        raise ScriptInvalid("the upload has no part named metadata")
    metadata, text = _metadata(metadata_part)
    upload = Upload(metadata, text, tuple(modules.values()), size)
    _check_main(upload)
    return upload


def read_field(body: bytes, content_type: str, name: str) -> bytes:
    """The part of a `multipart/form-data` body that has this name. Raises :class:`InvalidRequest`."""
    for segment, data in _parts(body, content_type):
        if segment.name == name:
            return data
    raise InvalidRequest(f"the body has no part named {name}")


def _parts(body: bytes, content_type: str) -> Iterator[tuple[MultipartSegment, bytes]]:
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise InvalidRequest("an upload must be multipart/form-data with a boundary")
    segment: MultipartSegment | None = None
    data = bytearray()
    try:
        parser = PushMultipartParser(options["boundary"], content_length=len(body), max_segment_count=MAX_PARTS)
        with parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    segment, data = event, bytearray()
                elif event:
                    data += event
                elif segment is not None:
                    yield segment, bytes(data)
    except (MultipartError, UnicodeError) as error:
        raise InvalidRequest(f"the body is not valid multipart/form-data: {error}") from None


def _module(segment: MultipartSegment, data: bytes) -> Module:
    name = segment.filename or segment.name or ""
    if not 1 <= len(name) <= MAX_NAME or any(c < " " or "\ud800" <= c <= "\udfff" for c in name):
        raise ScriptInvalid(f"a module's name must have 1 to {MAX_NAME} characters and no control characters")
    kind = segment.content_type or "application/octet-stream"
    if kind not in _BINARY:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise ScriptInvalid(f"module {name!r} ({kind}) is not UTF-8 text") from None
        if "\0" not in text:
            return Module(name, kind, text)
    return Module(name, kind, base64.b64encode(data).decode(), "base64")


def _metadata(data: bytes) -> tuple[Metadata, str]:
    try:
        raw = msgspec.json.decode(data)
        metadata = msgspec.convert(raw, Metadata)
        text = msgspec.json.encode(_without_secrets(raw)).decode()
    except msgspec.ValidationError as error:
        raise ScriptInvalid(f"metadata is not valid: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
        raise ScriptInvalid(f"metadata is not valid JSON: {error}") from None
    return metadata, text


def _without_secrets(raw: Any) -> Any:
    bindings = [
        {key: value for key, value in binding.items() if key != "text" or binding.get("type") != "secret_text"}
        for binding in raw.get("bindings", [])
    ]
    return {**raw, "bindings": bindings}


def _check_main(upload: Upload) -> None:
    metadata = upload.metadata
    name = metadata.main_module or metadata.body_part
    if not name:
        raise ScriptInvalid("metadata must have main_module (or body_part)")
    found = find_module(upload.modules, name)
    if found is None or found.type == SOURCE_MAP:
        listed = ", ".join(module.name for module in upload.modules if module.type != SOURCE_MAP) or "none"
        raise ScriptInvalid(f"the main module {name!r} is not among the uploaded modules: {listed}")


def find_module(modules: Sequence[Module], name: str) -> Module | None:
    """The module called `name`, with or without a leading `./`."""
    wanted = name.removeprefix("./")
    return next((module for module in modules if module.name.removeprefix("./") == wanted), None)


# --- bindings ----------------------------------------------------------------------------------------------------


def read_bindings(
    metadata: Metadata, previous: Sequence[Mapping[str, Any]], kept: frozenset[str], *, strict: bool
) -> Bindings:
    """The bindings an upload asks for.

    `previous` are those of the upload before, `kept` the names of its secrets. With `strict` an `inherit` binding that
    names none of them is an error. Raises :class:`ScriptInvalid` naming the binding, :class:`UnresolvedBinding`.
    """
    plain: dict[str, dict[str, Any]] = {}
    secrets: dict[str, str] = {}
    inherited: set[str] = set()
    unresolved: list[str] = []
    before = {binding["name"]: binding for binding in previous}
    for position, binding in enumerate(metadata.bindings):
        name = _binding_name(binding, position)
        if name in plain:
            raise ScriptInvalid(f"two bindings are named {name!r}")
        kind = binding.get("type")
        if kind == "inherit":
            if name in before:
                plain[name] = dict(before[name])
                inherited.update({name} & kept)
            else:
                unresolved.append(name)
            continue
        plain[name] = _checked(binding, name, kind)
        if kind == "secret_text":
            secrets[name] = binding["text"]
    if unresolved and strict:
        raise UnresolvedBinding(f"inherit binding {unresolved[0]!r} names nothing the script had before")
    if KEPT_TYPES & set(metadata.keep_bindings):
        for name in sorted(kept - plain.keys()):
            plain[name] = dict(before[name])
            inherited.add(name)
    return Bindings(list(plain.values()), secrets, frozenset(inherited), tuple(unresolved))


def _binding_name(binding: Mapping[str, Any], position: int) -> str:
    name = binding.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or any(c < " " for c in name):
        raise ScriptInvalid(f"binding {position} must have a name of 1 to 255 characters")
    return name


def _checked(binding: Mapping[str, Any], name: str, kind: Any) -> dict[str, Any]:
    """The binding as it is stored and shown."""
    if kind not in SUPPORTED_BINDINGS:
        supported = ", ".join(SUPPORTED_BINDINGS)
        raise ScriptInvalid(f"binding {name!r} has type {kind!r}, which is not supported; supported are {supported}")
    text = binding.get("text")
    if kind in ("plain_text", "secret_text") and not isinstance(text, str):
        raise ScriptInvalid(f"binding {name!r} ({kind}) must have text")
    if kind == "json" and "json" not in binding:
        raise ScriptInvalid(f"binding {name!r} (json) must have json")
    if kind == "workflow":
        return {"type": kind, "name": name, **_workflow_binding(binding, name)}
    if kind == "secret_text":
        return {"type": kind, "name": name}
    return {"type": kind, "name": name, **({"text": text} if kind == "plain_text" else {"json": binding["json"]})}


def _workflow_binding(binding: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not WORKFLOW_NAME.holds(binding.get("workflow_name")):
        raise ScriptInvalid(f"binding {name!r} (workflow): workflow_name must be {WORKFLOW_NAME.rule}")
    found = {"workflow_name": binding["workflow_name"]}
    for key in ("class_name", "script_name"):
        value = binding.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not 1 <= len(value) <= 255:
            raise ScriptInvalid(f"binding {name!r} (workflow): {key} must be a text of 1 to 255 characters")
        found[key] = value
    return found

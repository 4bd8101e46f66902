"""What runs behind the wall: stands alone, and speaks in frames."""

import ast
import mmap
import socket
import struct
import sys

import control
import frames
import lockdown
import pytest
from frames import NO_PART, PROGRESS, Frames

from instances.sandbox.process import encode_frame
from tests.support.sandbox import CHILD

FILES = sorted(CHILD.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_imports_the_standard_library_and_its_own_folder_only(file):
    own = {other.stem for other in FILES}
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in own | sys.stdlib_module_names


class Left(Exception):
    pass


@pytest.fixture
def wire(monkeypatch):
    """`(frames, socket of the worker, progress page)`; leaving the process raises `Left`."""

    def leave(code):
        raise Left(code)

    monkeypatch.setattr(frames, "leave", leave)
    ours, theirs = socket.socketpair()
    page = mmap.mmap(-1, frames.PAGE_BYTES)
    yield Frames(theirs.fileno(), page), ours, page
    ours.close()
    theirs.close()
    page.close()


def test_parts_come_one_by_one_and_the_page_names_each(wire):
    sandbox, worker, page = wire
    worker.send(encode_frame([b"Jone", b"", b"Jthree"]))
    seen = []
    while (part := sandbox.next_part()) is not None:
        seen.append((part, *PROGRESS.unpack_from(page)))
    assert seen == [(b"Jone", 1, 0), (b"", 1, 1), (b"Jthree", 1, 2)]
    assert PROGRESS.unpack_from(page) == (1, NO_PART)
    assert sandbox.next_part() is None
    sandbox.reply(b"[{},5]")
    assert worker.recv(100) == b"\6\0\0\0[{},5]"
    worker.send(encode_frame([b"x"]))
    assert (sandbox.next_part(), PROGRESS.unpack_from(page)) == (b"x", (2, 0))


def test_a_frame_without_parts_is_answered_too(wire):
    sandbox, worker, _ = wire
    worker.send(encode_frame([]) + encode_frame([b"next"]))
    assert sandbox.next_part() is None
    sandbox.reply(b"")
    assert sandbox.next_part() == b"next"


def test_a_frame_may_come_in_any_pieces(wire):
    sandbox, worker, _ = wire
    for byte in encode_frame([b"ab", b"c"]):
        worker.send(bytes([byte]))
    assert [sandbox.next_part(), sandbox.next_part(), sandbox.next_part()] == [b"ab", b"c", None]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("<I", frames.MAX_FRAME + 1),
        struct.pack("<II", 4, 1),
        struct.pack("<I", 3) + b"abc",
        struct.pack("<II", 6, 3) + b"ab",
    ],
)
def test_what_is_no_frame_ends_the_process(wire, sent):
    sandbox, worker, _ = wire
    worker.send(sent)
    with pytest.raises(Left, match=str(frames.EXIT_PROTOCOL)):
        sandbox.next_part()


def test_an_answer_that_is_too_large_ends_the_process(wire):
    sandbox, _worker, _ = wire
    with pytest.raises(Left, match=str(frames.EXIT_PROTOCOL)):
        sandbox.reply(bytes(frames.MAX_FRAME + 1))


def test_the_end_of_the_connection_ends_the_process(wire):
    sandbox, worker, _ = wire
    worker.close()
    with pytest.raises(Left, match=str(frames.EXIT_CLOSED)):
        sandbox.next_part()
    with pytest.raises(Left, match=str(frames.EXIT_CLOSED)):
        sandbox.reply(b"x")


def test_a_frame_has_a_largest_size():
    assert len(encode_frame([bytes(frames.MAX_FRAME - 4)])) == frames.MAX_FRAME + 4
    with pytest.raises(ValueError, match="are allowed"):
        encode_frame([bytes(frames.MAX_FRAME - 3)])
    with pytest.raises(ValueError, match="are allowed"):
        encode_frame([b""] * (frames.MAX_FRAME // 4 + 1))


@pytest.mark.parametrize(
    "message",
    [
        control.Fork(7, control.CANARY, control.Limits(data=1 << 40, cpu=9)),
        control.Kill(1 << 63),
        control.Ready({"landlock": 7}),
        control.Refused("because ☂", True),
        control.Refused("because", False),
        control.Forked(3, 4194304),
        control.NotForked(4, ""),
        control.Ended(5, -31, 0.25),
    ],
)
def test_control_messages_survive_the_way(message):
    assert control.unpack(control.pack(message)) == message


@pytest.mark.parametrize("record", [b"", b"?", b"F123", b"Xtoo short", b"K" + bytes(9)])
def test_other_records_are_no_control_messages(record):
    with pytest.raises(ValueError, match="not a control message"):
        control.unpack(record)


def test_reasons_fit_into_a_record():
    assert len(control.pack(control.Refused("☂" * 100_000, True))) < control.MAX_MESSAGE


@pytest.mark.parametrize(
    ("version", "files", "more"),
    [
        (1, 13, ()),
        (2, 14, ()),
        (3, 15, ()),
        (4, 15, (3,)),
        (5, 16, (3,)),
        (6, 16, (3, 3)),
        (7, 16, (3, 3)),
        (99, 16, (3, 3)),
    ],
)
def test_landlock_is_asked_for_all_its_version_can_refuse(version, files, more):
    attributes = lockdown.landlock_attributes(version)
    assert struct.unpack(f"={len(attributes) // 8}Q", attributes) == ((1 << files) - 1, *more)

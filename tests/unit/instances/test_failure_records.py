"""Failures in the journal: what is written is what a replay reads."""

from __future__ import annotations

import pytest

from instances.engine.runs.failures import decode_failure, encode_failure
from instances.runtimes.protocol import Failure


@pytest.mark.parametrize(
    "failure",
    [
        Failure("Error", "no"),
        Failure("HttpError", "500", "HTTP", output='{"status":500}', compensate_input="[1]"),
        Failure("Error", "", output="null"),
        Failure("Error", "ä\u2028"),
    ],
)
def test_a_failure_survives_the_journal(failure: Failure):
    assert decode_failure(encode_failure(failure)).failure() == failure


def test_a_lone_surrogate_in_its_output_does_not_stop_a_replay():
    read = decode_failure(encode_failure(Failure("Error", "no", output=r'"\ud800"'))).failure()
    assert read.output == r'"\ufffd"'

"""What can become of a call instead of an answer."""

from __future__ import annotations


class EgressError(Exception):
    """A call that gave no answer. `permanent`: the same call would fail again."""

    permanent = False


class EgressRefused(EgressError):
    """The call is not allowed or not well formed. Never says which internal address a name led to."""

    permanent = True

    @property
    def rule(self) -> str:
        """For messages that name the field the URL stands in: `must …`."""
        return str(self).removeprefix("the URL ")


class EgressFailed(EgressError):
    """The target could not be reached, or did not speak HTTP."""


class EgressTimeout(EgressError):
    """The time for the whole call ran out."""


class EgressTooLarge(EgressError):
    """The answer is larger than allowed, as sent or decompressed."""

    permanent = True

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer has more than {limit} bytes")

"""Errors of the embedded services; each text is one sentence for a person, with what to do about it."""


class EmbeddedError(Exception):
    """An embedded service cannot be started, used or stopped."""


class NoBinaries(EmbeddedError):
    """No usable server program is installed."""

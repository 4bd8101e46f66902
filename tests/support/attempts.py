"""Attempts of steps without an engine around them."""


async def no_streams(_piece: str) -> None:
    """Keeps the streams of attempts that return none."""
    raise AssertionError("the attempt returned a stream")

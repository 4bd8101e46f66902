"""The other side of the wall: executed by path in a sandbox, importing the standard library and mini-racer only."""

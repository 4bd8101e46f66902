"""What is made of a document once, because it is the same for everything that runs it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from versions.document.model import Document

HELD = 200
"""What is asked for oftener is remembered for so many documents."""

T = TypeVar("T")
P = ParamSpec("P")


class PerDocument(Generic[P, T]):
    """`make`, but called once for the same document and the same hashable rest. What it makes is shared, so nobody may
    change it.

    The same is the same object: to compare two costs more than most of what is made of them.
    """

    def __init__(self, make: Callable[Concatenate[Document, P], T]) -> None:
        self._make = make
        self._made: OrderedDict[tuple[object, ...], tuple[Document, T]] = OrderedDict()

    def __call__(self, document: Document, *rest: P.args, **named: P.kwargs) -> T:
        key = (id(document), *rest, *named.items())
        known = self._made.get(key)
        if known is None:  # else it is of this document: that it is held keeps others from its address
            known = self._made[key] = (document, self._make(document, *rest, **named))
            if len(self._made) > HELD:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return known[1]

"""What a codec is: from an element as the source holds it to the element as it is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from btreecache.element import Element


class Codec(Protocol):
    """Reads elements on their way into a cache. Pure: same element in, equal element out.

    name    what it is called on a command line
    fields  names of the declared fields, in the order of `Element.fields`

    It may have a `recipe`, bytes, which identifies for ever how it makes an element: another codec,
    or another version of this one, with the same recipe makes an equal element of the same source.
    Then what was made is archived, and taken up after a restart instead of being made again.
    """

    @property
    def name(self) -> str: ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    def decode(self, element: Element) -> Element:
        """The element as served. Never raises for its value: `Element.problem` tells."""


#: Steps from the top of an object to a value in it: member names, indexes of arrays.
Path = tuple[str | int, ...]


class DeclaredField(Protocol):
    """A field that selectors and indexes may ask for: where it stands in an object.

    name     as in a field selector: `spec.nodeName`
    paths    where to look, the first that is not empty counts; each is member names from the top
             of the object, and indexes of arrays: `("spec", "nodeName")`
    default  its value where the object has none, or an empty one
    """

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> Sequence[Path]: ...

    @property
    def default(self) -> str: ...


class Raw:
    """Values of any form, served as they are: no labels, no fields, no cost."""

    name = "raw"
    fields: tuple[str, ...] = ()

    def decode(self, element: Element) -> Element:
        """The element itself."""
        return element


class Unreadable(Exception):
    """A value is not what the codec reads; the text says why. Never leaves the codec."""


class Shared:
    """One copy of each short string that many elements repeat.

    A table of our own, because what `sys.intern` takes lives for ever on Python 3.12, and labels
    may be hostile. Forgets everything when full: strings in use stay with their elements.
    """

    def __init__(self, strings_max: int = 65_536, length_max: int = 256) -> None:
        self._known: dict[str, str] = {}
        self._strings_max, self._length_max = strings_max, length_max

    def one(self, text: str) -> str:
        """The copy of `text` that others have, if it is known. O(1)."""
        known = self._known
        found = known.get(text)
        if found is not None:
            return found
        if len(text) <= self._length_max:
            if len(known) >= self._strings_max:
                known.clear()
            known[text] = text
        return text

    def labels(self, labels: dict[str, str]) -> tuple[str, ...]:
        """Labels as an element has them: name, value, ... sorted by name; `()` if none."""
        if not labels:
            return ()
        one = self.one
        flat: list[str] = []
        for name in sorted(labels):
            flat += (one(name), one(labels[name]))
        return tuple(flat)

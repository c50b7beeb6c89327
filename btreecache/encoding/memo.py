"""Memo: what was made from elements, kept under a byte budget. Exact least recently used.

For values that belong to one element, where Blocks (block.py) are for those of a node. An entry
holds its element, so that a hit is for that very element and not for another history's with the
same key and revision; and so the element's bytes count as well, because the entry may be all that
keeps it alive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Final

from btreecache.element import Element

#: The bytes of an entry beside its element and value: its place in the table (two hundred with the
#: links of its order), the key's tuple, the entry's tuple.
ENTRY_BYTES: Final = 400


class Memo:
    """Bytes made from elements. Any thread; every method is O(1) but for what it throws out.

    `size_bytes` never exceeds `budget_bytes`; a budget of 0 keeps nothing.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Element, bytes, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, what: str, element: Element) -> bytes | None:
        """What was made from this very element; None if it isn't kept."""
        name = element.key, element.mod_revision, what
        with self._lock:
            found = self._entries.get(name)
            if found is None or found[0] is not element:
                return None
            self._entries.move_to_end(name)
            return found[1]

    def put(self, what: str, element: Element, made: bytes) -> None:
        """Keep what was made, unless it alone is more than the budget."""
        name = element.key, element.mod_revision, what
        size = len(made) + element.size_bytes() + ENTRY_BYTES
        with self._lock:
            before = self._entries.pop(name, None)
            if before is not None:
                self.size_bytes -= before[2]
            if size > self.budget_bytes:
                return
            self._entries[name] = element, made, size
            self.size_bytes += size
            while self.size_bytes > self.budget_bytes:
                _, (_, _, freed) = self._entries.popitem(last=False)
                self.size_bytes -= freed

"""Where the members of a JSON object stand in its text, proved.

msgspec parses the text and gives each member's value as a slice of it, but not where the slice
lies, and the last of duplicate names. Positions are found from the lengths, and they are right
because nothing is left over:

- Compact text: members, quotes, colons, commas and braces take at least as many bytes as the
  decoded names and the values say. If they take exactly as many, there is no white space, no escape
  in a name and no duplicate, so each member begins where the lengths say.
- Else the text is walked: it is valid JSON, so after a name comes a colon, and so on. The i-th
  member of the text must carry the i-th value, and after the last must come the closing brace; a
  duplicate makes the text have more members than the object, and fails that.

Not here: repairing anything. A text whose positions can't be proved is `Unreadable`.
"""

from __future__ import annotations

import re

import msgspec

from btreecache.codec.base import Unreadable

SPACE = b" \t\n\r"

#: Members of a JSON object in order, each value as it stands in the text.
Members = dict[str, msgspec.Raw]

members_of = msgspec.json.Decoder(Members).decode

_NAME = re.compile(rb'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_AFTER = re.compile(rb"[ \t\n\r]*([,}])", re.DOTALL)


#: Offsets of one member: its name's opening quote, its value's begin and end.
Span = tuple[int, int, int]


def check_utf8(text: bytes) -> None:
    """JSON is UTF-8; msgspec does not look inside the strings that it skips."""
    if not text.isascii():
        text.decode()


def spans(text: bytes, members: Members, start: int, stop: int) -> list[Span]:
    """Where each of `members`, parsed from text[start:stop], stands in `text`. O(members).

    Raises Unreadable where a name is there twice.
    """
    found: list[Span] = []
    at = start + 1
    for name, value in members.items():
        begin = at + len(name if name.isascii() else name.encode()) + 3
        end = begin + len(value)
        found.append((at, begin, end))
        at = end + 1
    if at == stop and members:
        return found
    return _walk(text, members, start, stop)


def _walk(text: bytes, members: Members, start: int, stop: int) -> list[Span]:
    """`spans` for any valid text. O(len(text))."""
    found: list[Span] = []
    at = start + 1
    for value in members.values():
        name = _NAME.match(text, at, stop)
        if name is None:
            raise Unreadable("a member of the object is there twice")
        begin, end = name.end(), name.end() + len(value)
        after = _AFTER.match(text, end, stop)
        if after is None or text[begin:end] != bytes(memoryview(value)):
            raise Unreadable("a member of the object is there twice")
        found.append((name.start(1), begin, end))
        at = after.end()
    if members and at != stop:
        raise Unreadable("a member of the object is there twice")
    return found

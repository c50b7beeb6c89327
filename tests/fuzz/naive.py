"""What tokens and selectors mean, in the plainest way: for those whose meaning is plain.

Nothing here is of btreecache. None: not for this to say.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Matcher = Callable[[Mapping[str, str]], bool]

#: A selector longer than this is left unread.
CHARS_MAX = 20_000


def everything(_: Mapping[str, str]) -> bool:
    """What an empty selector selects."""
    return True


_WORD = r"[^ \t\r\n=!(),<>]+"
_S = r"[ \t\r\n]*"
_HAS = re.compile(rf"(!?){_S}({_WORD})")
_IS = re.compile(rf"({_WORD}){_S}(==|!=|=|<|>){_S}({_WORD})?")
_IN = re.compile(rf"({_WORD})[ \t\r\n]+(in|notin){_S}\(([^()]*)\)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,25}")


def labels(text: str) -> Matcher | None:
    """The label selector that `text` spells."""
    text = text.strip(" \t\r\n")
    if not text:
        return everything
    if len(text) > CHARS_MAX:
        return None
    tests = []
    for term in re.split(r",(?![^()]*\))", text):
        test = _label(term.strip(" \t\r\n"))
        if test is None:
            return None
        tests.append(test)
    return lambda held: all(test(held) for test in tests)


def _label(term: str) -> Matcher | None:
    if found := _HAS.fullmatch(term):
        absent, key = found.groups()
        return lambda held: (key not in held) if absent else (key in held)
    if found := _IN.fullmatch(term):
        key, operator, listed = found.groups()
        values = {value.strip(" \t\r\n") for value in listed.split(",")}
        if any(re.search(r"[ \t\r\n]", value) for value in values):
            return None
        return lambda held: (held.get(key) in values) is (operator == "in")
    if found := _IS.fullmatch(term):
        key, operator, value = found[1], found[2], found[3] or ""
        if operator in "<>":
            return lambda held: _compare(held.get(key), operator, value)
        return lambda held: (held.get(key) == value) is (operator != "!=")
    return None


def _compare(held: str | None, operator: str, bound: str) -> bool:
    if held is None or not (_NUMBER.fullmatch(held) and _NUMBER.fullmatch(bound)):
        return False
    return int(held) > int(bound) if operator == ">" else int(held) < int(bound)


def fields(text: str, *, aliases: bool) -> Matcher | None:
    """The field selector of pods that `text` spells."""
    if len(text) > CHARS_MAX:
        return None
    tests = []
    for term in re.findall(r"(?:\\.|[^,\\])+", text, flags=re.DOTALL):
        found = re.match(r"(.*?)(!=|==|=)(.*)", term, flags=re.DOTALL)
        if found is None:
            return None
        name, operator, value = found.groups()
        if not name and not value:
            continue
        if name == "spec.host" and aliases:
            name = "spec.nodeName"
        tests.append((name, re.sub(r"\\(.)", r"\1", value), operator == "!="))
    if not tests:
        return everything
    return lambda held: all((held.get(name, "") == value) is not no for name, value, no in tests)


def token(text: str) -> tuple[bytes, int] | None:
    """Where a token goes on, without the prefix, and at which revision."""
    chars = text.replace("\r", "").replace("\n", "")
    try:
        raw = base64.b64decode(chars + "=" * (-len(chars) % 4), b"-_", validate=True)
        members: Any = json.loads(raw.decode(errors="replace"), object_pairs_hook=list)
        said = {name.casefold(): value for name, value in members if value is not None}
        start, revision = said["start"], said["rv"]
        if type(revision) is not int:
            return None
        start = re.sub("[\ud800-\udfff]", "\ufffd", start)
        return start.removeprefix("/").encode(), revision
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None

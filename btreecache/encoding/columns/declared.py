"""Columns that a CustomResourceDefinition declares: simple JSON paths, and what they show.

A path is a chain of names (`.spec.size`, `.metadata.labels.a\\.b`, `['a.b']`), places (`[0]`,
`[-1]`), everything (`[*]`) and of the objects of an array those with one text under a path
(`[?(@.type=="Ready")]`). Of several values a cell shows the first. What is no such path, leads
nowhere or ends at a value of another type than the column's is an empty cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain, islice

from btreecache.encoding.columns.definition import NAME, Cell, Column, Columns
from btreecache.encoding.columns.shape import Object
from btreecache.encoding.columns.words import INVALID, UNKNOWN, name_of, seconds_at, since
from btreecache.resources import PrinterColumn

#: Steps of a path; more is no path that anybody writes.
STEPS_MAX = 64

#: Values that a step may lead to: `[*]` of a large array has its first ones looked at.
VALUES_MAX = 1_000

#: From the values that were reached to those that a step leads to.
Step = Callable[[object], Iterator[object]]

_NAME = r"(?:[^\\.\[\]{}()'\"?@*\s]|\\.)+"
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_STEP = re.compile(
    rf"\.(?P<name>{_NAME})|\[(?P<quoted>{_QUOTED})\]|\[(?P<place>-?\d{{1,9}})\]"
    rf"|(?P<every>\[\*\]|\.\*)"
    rf"|\[\?\(\s*@(?P<path>(?:\.{_NAME})+)\s*==\s*(?P<text>{_QUOTED})\s*\)\]"
)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _member(name: str, value: object) -> Iterator[object]:
    if isinstance(value, dict) and name in value:
        yield value[name]


def _item(place: int, value: object) -> Iterator[object]:
    if isinstance(value, list) and -len(value) <= place < len(value):
        yield value[place]


def _every(value: object) -> Iterator[object]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _those(steps: Sequence[Step], text: str, value: object) -> Iterator[object]:
    for one in _every(value) if isinstance(value, list) else ():
        if next(reached(steps, one), None) == text:
            yield one


def steps_of(path: str) -> tuple[Step, ...] | None:
    """The steps of a path; None if it is none that this reads. O(len(path))."""
    found: list[Step] = []
    at = 0
    while at < len(path) and len(found) <= STEPS_MAX:
        match = _STEP.match(path, at)
        if match is None:
            return None
        if match["name"]:
            found.append(partial(_member, _unescaped(match["name"])))
        elif match["quoted"]:
            found.append(partial(_member, _unescaped(match["quoted"][1:-1])))
        elif match["place"]:
            found.append(partial(_item, int(match["place"])))
        elif match["every"]:
            found.append(_every)
        else:
            inner = steps_of(match["path"])
            assert inner is not None
            found.append(partial(_those, inner, _unescaped(match["text"][1:-1])))
        at = match.end()
    return tuple(found) if found and at == len(path) and len(found) <= STEPS_MAX else None


def reached(steps: Sequence[Step], value: object) -> Iterator[object]:
    """The values at the end of a path, in order; VALUES_MAX of each step are followed."""
    values: Iterator[object] = iter((value,))
    for step in steps:
        values = islice(chain.from_iterable(map(step, values)), VALUES_MAX)
    return values


def _first(path: str) -> str | None:
    """The member of an object that a path looks at; None: any, or it is no path."""
    match = _STEP.match(path)
    name = match and (match["name"] or (match["quoted"] or "")[1:-1])
    return _unescaped(name) if name else None


def _cell(kind: str, value: object, now_s: float) -> Cell | None:
    """What a column of a type shows of a value, as API servers do."""
    match kind:
        case "string":
            return _text(value)
        case "integer":
            if type(value) is float and abs(value) < 2**63:
                return int(value)
            return value if type(value) is int and abs(value) < 2**63 else None
        case "number":
            return value if type(value) in (int, float) else None  # type: ignore[return-value]
        case "boolean":
            return value if type(value) is bool else None
        case "date":
            return _date(value, now_s)
    return None


def _date(value: object, now_s: float) -> str | None:
    if type(value) is not str:
        return None
    if value in ("", "null"):
        return UNKNOWN
    then_s = seconds_at({"at": value}, "at")
    return INVALID if then_s is None else since(then_s, now_s)


def _text(value: object) -> str | None:
    if value is None:
        return None
    if type(value) is str:
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return None


@lru_cache(1 << 10)
def declared(columns: tuple[PrinterColumn, ...]) -> Columns:
    """The columns of a custom resource: its name, and those that it declares."""
    paths = [(steps_of(one.path), one.type) for one in columns]
    reads = {first for one in columns if (first := _first(one.path)) is not None}

    def cells(one: Object, now_s: float) -> list[Cell | None]:
        found: list[Cell | None] = [name_of(one)]
        for steps, kind in paths:
            value = next(reached(steps, one), None) if steps else None
            found.append(_cell(kind, value, now_s))
        return found

    shown = tuple(
        Column(
            one.name, one.description or f"What is at {one.path}.",
            one.type, one.format, one.priority,
        )
        for one in columns
    )  # fmt: skip
    return Columns((NAME, *shown), cells, tuple(sorted(reads)))

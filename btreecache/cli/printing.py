"""Objects as lines of text: a table, JSON, YAML, or the name of each."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Any, NamedTuple

from btreecache.encoding.columns import columns_of
from btreecache.resources import BUILT_IN, Resource

FORMS = ("table", "wide", "json", "yaml", "name")

#: Rows that are aligned with each other, as kubectl does it: more would hold the first one up.
BLOCK_ROWS = 500

#: Spaces between columns.
GAP = "   "


class Shown(NamedTuple):
    """One line of it. `text`: the object as JSON; `event`: of a watch, what became of it."""

    key: bytes
    text: bytes
    event: str = ""


def printer(form: str, now_s: Callable[[], float]) -> Callable[[Iterable[Shown]], Iterator[str]]:
    """What makes text of the objects of a list or watch, as they come."""
    match form:
        case "name":
            return names
        case "json":
            return json_lines
        case "yaml":
            return yaml_documents
    return lambda shown: tables(shown, now_s, wide=form == "wide")


def printable(text: str) -> str:
    """The text with whatever a terminal might take for a command, or a line break, escaped."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def key_text(key: bytes) -> str:
    """A key for people: any byte of it can be seen and none does anything."""
    return printable(key.decode(errors="surrogateescape"))


def time_text(time_s: float) -> str:
    """Seconds since 1970 as RFC 3339, to the microsecond."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def bytes_member(name: str, value: bytes) -> dict[str, str]:
    """Bytes as a member of a JSON object: `name` where they are text, else `name_base64`."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def names(shown: Iterable[Shown]) -> Iterator[str]:
    """Exactly one line an object: its key, which `btreecache get` takes."""
    for one in shown:
        event = f"{one.event} " if one.event else ""
        yield event + key_text(one.key) + "\n"


def json_lines(shown: Iterable[Shown]) -> Iterator[str]:
    """One line an object, or of a watch one line an event."""
    for one in shown:
        text = one.text.translate(None, b"\r\n").decode()
        yield f'{{"type":"{one.event}","object":{text}}}\n' if one.event else text + "\n"


def json_list(shown: Iterable[Shown], revision: int) -> Iterator[str]:
    """One List, an item a line."""
    meta = json.dumps({"resourceVersion": str(revision)}, separators=(",", ":"))
    yield f'{{"kind":"List","apiVersion":"v1","metadata":{meta},"items":['
    before = "\n"
    for line in json_lines(shown):
        yield before + line.rstrip("\n")
        before = ",\n"
    yield "\n]}\n"


def yaml_documents(shown: Iterable[Shown]) -> Iterator[str]:
    """One document an object."""
    from btreecache.encoding.text import yaml

    for one in shown:
        comment = f"# {one.event}\n" if one.event else ""
        yield f"---\n{comment}{yaml(one.text).decode()}"


def tables(
    shown: Iterable[Shown], now_s: Callable[[], float], *, wide: bool = False
) -> Iterator[str]:
    """Tables as kubectl prints them: one for each run of objects of a kind. Events of a watch are
    printed as they come, each kind's header once."""
    headed: Resource | None = None
    for (resource, is_watch), run in groupby(map(_decoded, shown), lambda one: one[:2]):
        rows = iter(run)
        while block := list(islice(rows, 1 if is_watch else BLOCK_ROWS)):
            table = _rows(resource, block, now_s(), wide=wide)
            lines = [*_aligned(table, is_watch=is_watch)]
            if resource == headed:
                del lines[0]
            elif headed is not None:
                yield "\n"
            headed = resource
            yield from lines


def _decoded(one: Shown) -> tuple[Resource, bool, Shown, dict[str, Any]]:
    value = json.loads(one.text)
    assert isinstance(value, dict), "the codec reads objects only"
    return _resource_of(value), bool(one.event), one, value


def _resource_of(value: dict[str, Any]) -> Resource:
    """The resource that an object says it is."""
    version, kind = str(value.get("apiVersion", "")), str(value.get("kind", ""))
    group, _, version = version.rpartition("/")
    for resource in BUILT_IN.all:
        if (resource.group, resource.kind) == (group, kind):
            return resource
    namespaced = bool(_metadata(value).get("namespace"))
    return Resource(group, kind.lower(), kind, namespaced, (version,), "")


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    found = value.get("metadata")
    return found if isinstance(found, dict) else {}


def _rows(
    resource: Resource,
    block: list[tuple[Resource, bool, Shown, dict[str, Any]]],
    now_s: float,
    *,
    wide: bool,
) -> list[list[str]]:
    """The header and a row for each object, every cell as text."""
    columns = columns_of(resource)
    shown = [at for at, one in enumerate(columns.columns) if wide or not one.priority]
    watching = block[0][1]
    first = (["EVENT"] if watching else []) + (["NAMESPACE"] if resource.namespaced else [])
    rows = [first + [columns.columns[at].name.upper() for at in shown]]
    for _, _, one, value in block:
        cells = columns.cells(value, now_s)
        before = ([one.event] if watching else []) + (
            [str(_metadata(value).get("namespace", ""))] if resource.namespaced else []
        )
        rows.append([printable(str(cell)) for cell in [*before, *(cells[at] for at in shown)]])
    return rows


def _aligned(rows: list[list[str]], *, is_watch: bool) -> Iterator[str]:
    # Of a watch nobody knows the rows to come: room for what is usual.
    least = 10 if is_watch else 0
    widths = [max(least, *map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield GAP.join(cells).rstrip() + "\n"

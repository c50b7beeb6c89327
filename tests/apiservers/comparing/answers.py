"""Asking, and what of an answer counts: status, some headers, and what the body says.

Left out: Audit-Id, Date, X-Kubernetes-Pf-* and Content-Length or Transfer-Encoding, which say
nothing about objects; how gzip made what it made; and of watches the bookmarks that time makes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from tests.apiservers.comparing.questions import Question

HEADERS = (
    "content-type", "cache-control", "warning", "vary", "content-encoding", "allow", "retry-after",
)  # fmt: skip
PAGES_MAX = 200
END = "k8s.io/initial-events-end"

#: The type of an event in Protobuf; how old an object is in a table, which is another next second.
_FRAME = re.compile(rb"\n.(ADDED|MODIFIED|DELETED|BOOKMARK|ERROR)\x12")
_AGE = re.compile(r"\d+s")


@dataclass(frozen=True)
class Answer:
    """`bodies`: one; of a chain each page, of a watch each event. Bytes where it isn't JSON."""

    status: int
    headers: dict[str, str]
    bodies: list[Any]


async def ask(client: httpx.AsyncClient, question: Question) -> Answer:
    """One answer, with all its pages."""
    headers = {"accept": question.accept} if question.accept else {}
    headers["accept-encoding"] = "gzip" if question.gzip else "identity"
    if not question.accept:
        client.headers.pop("accept", None)
    pages: list[Any] = []
    url, token = question.url, ""
    while True:
        more = f"&continue={token}" if token else ""
        answer = await client.get(url + more, headers=headers)
        bodies = [*_bodies(answer, question)]
        pages += bodies
        body = bodies[0] if bodies else None
        token = body.get("metadata", {}).get("continue", "") if isinstance(body, dict) else ""
        if not question.chained or not token or answer.status_code != 200:
            break
        if "&resourceVersion" in url:  # What is said at the first page is in the token.
            url = question.path + "?" + "&".join(
                f"{name}={value}" for name, value in question.query if "Version" not in name
            )  # fmt: skip
        assert len(pages) < PAGES_MAX, f"endless: {question}"
    counted = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    return Answer(answer.status_code, counted, pages)


def _bodies(answer: httpx.Response, question: Question) -> Iterator[Any]:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    watched = any(name == "watch" for name, _ in question.query)
    if kind == "application/json" and watched and answer.status_code == 200:
        for line in answer.text.splitlines():
            event = json.loads(line)
            ends = event["object"].get("metadata", {}).get("annotations", {}).get(END)
            if event["type"] != "BOOKMARK" or ends:
                yield event
    elif kind == "application/json":
        yield answer.json()
    elif kind == "application/yaml":
        yield yaml.safe_load(answer.text)
    elif watched and answer.status_code == 200:
        yield from _frames(answer.content)
    else:
        yield answer.content


def _frames(stream: bytes) -> Iterator[bytes]:
    """The events of a watch in Protobuf."""
    place = 0
    while place < len(stream):
        length = int.from_bytes(stream[place : place + 4])
        frame = stream[place + 4 : place + 4 + length]
        place += 4 + length
        if b"BOOKMARK" not in frame or END.encode() in frame:
            yield frame


def differences(question: Question, theirs: Answer, ours: Answer) -> list[str]:
    """Where two answers differ, each as `place: theirs != ours`."""
    if theirs.status != ours.status:
        return [f"status: {theirs.status} {_said(theirs)} != {ours.status} {_said(ours)}"]
    found = [*_older(question, ours)]
    for name in HEADERS:
        one, other = theirs.headers.get(name), ours.headers.get(name)
        if one != other:
            found.append(f"{name}: {one} != {other}")
    if question.kind == "document":
        return [*found, *_documents(theirs.bodies, ours.bodies)]
    if question.chained and len(theirs.bodies) != len(ours.bodies):
        found.append(f"pages: {len(theirs.bodies)} != {len(ours.bodies)}")
        one, other = [*_parts(theirs.bodies)], [*_parts(ours.bodies)]
        return [*found, *_places(one, other, "")]
    their, our = [_kind(body) for body in theirs.bodies], [_kind(body) for body in ours.bodies]
    if their != our:
        return [*found, f"kinds: {_shown(their)} != {_shown(our)}"]
    pairs: Iterator[tuple[Any, Any]] = zip(theirs.bodies, ours.bodies, strict=True)
    if "watch" in dict(question.query):
        pairs = zip(_in_order(theirs.bodies, ours.bodies, found), ours.bodies, strict=True)
    for one, other in pairs:
        found += _places(_aligned(one, other, found), other, "")
    return [*dict.fromkeys(found)]


def _kind(body: Any) -> str:
    """Of an object or list, an event, a Status; of a Status in Protobuf what can be read of it."""
    if isinstance(body, bytes) and (frame := _FRAME.search(body)) and frame[1] != b"ERROR":
        return f"{frame[1].decode()} bytes"
    if not isinstance(body, dict):
        said = b" ".join(re.findall(rb"[ -~]{6,}", body)) if b"Status" in body else body[:4]
        return f"bytes {said.decode('latin-1')!r}"
    if "type" in body and "object" in body:
        return f"{body['type']} {_kind(body['object'])}"
    if body.get("kind") == "Status":
        return f"Status {body['code']} {body['message']}"
    return str(body.get("kind"))


def _shown(kinds: list[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in Counter(kinds).items()) or "nothing"


def _older(question: Question, answer: Answer) -> Iterator[str]:
    """Lists at another revision are no difference where any will do that is new enough."""
    asked = dict(question.query).get("resourceVersion", "")
    for body in answer.bodies:
        found = body.get("metadata", {}).get("resourceVersion") if isinstance(body, dict) else None
        if question.kind != "get" and asked.isdigit() and found and int(found) < int(asked):
            yield f"older than asked: {found} < {asked}"


def _parts(pages: list[Any]) -> Iterator[Any]:
    """The items or rows of all pages."""
    for page in pages:
        yield from page.get("items") or page.get("rows") or ()


def _said(answer: Answer) -> str:
    return _kind(answer.bodies[0]) if answer.bodies else ""


def _aligned(one: Any, other: Any, found: list[str]) -> Any:
    """A list, its items or rows in the order of the other's."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one
    parts = [part for part in ("items", "rows") if one.get(part)]
    return one | {part: _in_order(one[part], other.get(part), found) for part in parts}


def _aligned(one: Any, other: Any, found: list[str]) -> Any:
    """A list, its items or rows in the order of the other's."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one
    parts = [part for part in ("items", "rows") if one.get(part)]
    return one | {part: _in_order(one[part], other.get(part), found) for part in parts}


def _in_order(things: list[Any], others: Any, found: list[str]) -> list[Any]:
    """Objects or events in the order of the others, if they are of the same objects."""
    if not isinstance(others, list) or [*map(_key, things)] == [*map(_key, others)]:
        return things
    if sorted(map(_key, things)) != sorted(map(_key, others)):
        return things
    found.append("order: another one")
    places = {_key(other): place for place, other in enumerate(others)}
    return sorted(things, key=lambda thing: places[_key(thing)])


def _key(thing: Any) -> tuple[str, ...]:
    """Of an object, or of an event, by which it is the same one."""
    if not isinstance(thing, dict):
        return (repr(thing),)
    if "type" in thing and "object" in thing:
        return (thing["type"], *_key(thing["object"]))
    if "rows" in thing:
        return tuple(part for row in thing["rows"] or () for part in _key(row))
    if "cells" in thing:
        return (str(thing["cells"][0]), str(thing["object"].get("metadata", {}).get("uid")))
    metadata = thing.get("metadata", {})
    return metadata.get("namespace", ""), metadata.get("name", ""), metadata.get("uid", "")


def _places(one: Any, other: Any, place: str) -> Iterator[str]:
    """Where two JSON values differ."""
    if type(one) is not type(other):
        yield f"{place}: {one!r} != {other!r}"
    elif isinstance(one, dict):
        for name in sorted(one.keys() | other.keys()):
            if name not in one or name not in other:
                shown = [repr(each[name]) if name in each else "absent" for each in (one, other)]
                yield f"{place}.{name}: {shown[0]} != {shown[1]}"
            elif not (name == "continue" and place == ".metadata"):
                yield from _places(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, list):
        if len(one) != len(other):
            yield f"{place}: {len(one)} items != {len(other)}"
        for first, second in zip(one, other, strict=False):
            yield from _places(first, second, f"{place}[]")
    elif one != other and not (_AGE.fullmatch(str(one)) and _AGE.fullmatch(str(other))):
        yield f"{place}: {one!r} != {other!r}"


def _documents(theirs: list[Any], ours: list[Any]) -> Iterator[str]:
    """Discovery says what each server has; compared is what both have."""
    for one, other in zip(theirs, ours, strict=True):
        if not isinstance(one, dict) or not isinstance(other, dict):
            if one != other:
                yield f"document: {str(one)[:80]} != {str(other)[:80]}"
            continue
        if one.get("kind") != other.get("kind"):
            yield f".kind: {one.get('kind')} != {other.get('kind')}"
        their = {each["name"]: each for each in one.get("resources") or one.get("groups") or ()}
        our = {each["name"]: each for each in other.get("resources") or other.get("groups") or ()}
        for name in sorted(their.keys() & our.keys()):
            for part in ("kind", "namespaced", "singularName", "shortNames", "categories"):
                first, second = their[name].get(part), our[name].get(part)
                if first != second:
                    yield f".{part}: {first!r} != {second!r}"

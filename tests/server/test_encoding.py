"""Forms over HTTP: what each Accept header gets, lengths, and answers that can't be completed."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Message
from yaml import safe_load

from btreecache.codec.transcode import json_of, protobuf_of
from btreecache.element import Element
from btreecache.encoding import json_list
from btreecache.encoding.form import Form
from btreecache.encoding.media import MediaType
from btreecache.encoding.values import Values
from btreecache.features import Features
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN, parse_resource
from btreecache.server import application, sending
from btreecache.server.refusals import UnknownPath, status_of
from tests.encoding import oracle
from tests.server.world import World, pod, pod_key

PODS = "/api/v1/pods"
PROTOBUF = "application/vnd.kubernetes.protobuf"
G = ";g=meta.k8s.io;v=v1"
WIDGETS = parse_resource("g.io/v1/widgets:Widget:namespaced")
WIDGET = b'{"apiVersion":"g.io/v1","kind":"Widget","metadata":{"name":"w","namespace":"a"},"n":1}'


@pytest.fixture(scope="module")
def standing() -> Iterator[World]:
    """A pod stored as JSON, one as protobuf, and a custom object."""
    with World(resources=[WIDGETS]) as made:
        made.put_pod("a", "x", app="web")
        made.model.put(pod_key("a", "y"), protobuf_of(pod("a", "y", app="<&>")))
        made.model.put(b"/registry/g.io/widgets/a/w", WIDGET)
        yield made


def test_objects_are_answered_in_json_however_they_are_stored(standing: World) -> None:
    answer = standing.get(PODS)
    assert answer.headers["content-type"] == "application/json"
    names = [one["metadata"]["name"] for one in answer.json()["items"]]
    assert names == ["x", "y"]
    assert all("kind" not in one for one in answer.json()["items"])
    one = standing.get("/api/v1/namespaces/a/pods/y")
    assert one.text.startswith('{"kind":"Pod","apiVersion":"v1","metadata":{"name":"y",')
    assert one.text.endswith("}\n")
    assert '"app":"\\u003c\\u0026\\u003e"' in one.text


def test_protobuf(standing: World) -> None:
    answer = standing.get(PODS, Accept=f"{PROTOBUF},application/json")
    assert answer.headers["content-type"] == PROTOBUF
    assert int(answer.headers["content-length"]) == len(answer.content)
    unknown = oracle.CLASSES["Unknown"].FromString(answer.content[4:])
    assert unknown.typeMeta.kind == "PodList"
    listed = oracle.CLASSES["List"].FromString(unknown.raw)
    texts = [json_of(oracle.envelope("Pod", "v1", raw)) for raw in listed.items]
    assert [json.loads(text)["metadata"]["name"] for text in texts] == ["x", "y"]
    for name in ("x", "y"):
        one = standing.get(f"/api/v1/namespaces/a/pods/{name}", Accept=PROTOBUF)
        assert one.headers["content-type"] == PROTOBUF
        plain = standing.get(f"/api/v1/namespaces/a/pods/{name}").json()
        assert json.loads(json_of(one.content))["metadata"] == plain["metadata"]


@pytest.mark.parametrize(
    ("path", "accept", "content_type", "begins"),
    [
        (PODS, f"application/json;as=Table{G},application/json", "application/json",
         '{"kind":"Table","apiVersion":"meta.k8s.io/v1",'),
        (PODS, f"application/json;as=PartialObjectMetadataList{G}", "application/json",
         '{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1",'),
        ("/api/v1/namespaces/a/pods/y", f"application/json;as=PartialObjectMetadata{G}beta1",
         "application/json",
         '{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1","metadata":{"name":"y"'),
        ("/api/v1/namespaces/a/pods/y", f"application/json;as=Table{G}", "application/json",
         '{"kind":"Table"'),
        (PODS, "application/yaml", "application/yaml", "apiVersion: v1\nitems:\n- metadata:\n"),
        (PODS, "application/json;pretty=1", "application/json", '{\n  "kind": "PodList",\n'),
        (PODS + "?pretty=true", "*/*", "application/json", '{\n  "kind": "PodList",\n'),
        ("/api?pretty=1", "*/*", "application/json", '{\n  "kind": "APIVersions",\n'),
        ("/apis/g.io/v1/widgets", f"{PROTOBUF},application/json", "application/json",
         '{"apiVersion":"g.io/v1","items":[{"apiVersion":"g.io/v1","kind":"Widget",'),
        ("/apis/g.io/v1/widgets", f"{PROTOBUF};as=PartialObjectMetadataList{G}", PROTOBUF, "k8s\0"),
        ("/apis/g.io/v1/namespaces/a/widgets/w", "application/yaml", "application/yaml",
         "apiVersion: g.io/v1\nkind: Widget\n"),
    ],
)  # fmt: skip
def test_forms(standing: World, path: str, accept: str, content_type: str, begins: str) -> None:
    answer = standing.get(path, Accept=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == content_type
    assert answer.content.decode("latin-1").startswith(begins)


@pytest.mark.parametrize(
    ("path", "accept", "message"),
    [
        (PODS, "text/html", "application/json, application/yaml, " + PROTOBUF),
        (PODS, f"application/json;as=PartialObjectMetadata{G}", "is a list"),
        ("/api/v1/namespaces/a/pods/y", f"{PROTOBUF};as=PartialObjectMetadataList{G}",
         "not a list"),
        (PODS + "?watch=1", "application/yaml", f"application/json;stream=watch, {PROTOBUF}"),
        ("/apis/g.io/v1/widgets", PROTOBUF, "application/json, application/yaml"),
        ("/apis", "text/html", "application/json, application/yaml, " + PROTOBUF),
    ],
)  # fmt: skip
def test_what_there_is_not(standing: World, path: str, accept: str, message: str) -> None:
    answer = standing.get(path, Accept=accept)
    said = status_in(answer)
    assert (answer.status_code, said["reason"]) == (406, "NotAcceptable")
    assert message in said["message"]


def status_in(answer: httpx.Response) -> dict[str, Any]:
    """The Status of a refusal, in any form."""
    match answer.headers["content-type"]:
        case "application/json":
            return dict(answer.json())
        case "application/yaml":
            return dict(safe_load(answer.text))
    assert answer.headers["content-type"] == PROTOBUF
    return dict(json.loads(json_of(answer.content)))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/yaml", "application/yaml"),
        (PROTOBUF, PROTOBUF),
        (f"{PROTOBUF},application/json", PROTOBUF),
        (f"application/json;as=Table{G},{PROTOBUF}", PROTOBUF),
        (f"{PROTOBUF};as=PartialObjectMetadata{G}", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_errors_come_in_the_form_that_is_asked_for(
    standing: World, accept: str, content_type: str
) -> None:
    answer = standing.get("/api/v1/namespaces/a/pods/no", Accept=accept)
    assert answer.headers["content-type"] == content_type
    code = 406 if accept == "text/html" else 404
    assert (answer.status_code, status_in(answer)["code"]) == (code, code)


def test_the_list_of_paths_is_json_whatever_is_asked_for(standing: World) -> None:
    for accept in (PROTOBUF, "application/yaml", "text/html"):
        answer = standing.get("/", Accept=accept)
        assert (answer.status_code, "/apis" in answer.json()["paths"]) == (200, True)


def test_include_object_means_nothing_but_to_tables(standing: World) -> None:
    assert standing.get(PODS + "?includeObject=All").status_code == 200


def test_bad_include_object(standing: World) -> None:
    answer = standing.get(PODS + "?includeObject=All", Accept=f"application/json;as=Table{G}")
    assert answer.status_code == 400


def test_people_at_a_terminal_get_readable_errors(standing: World) -> None:
    answer = standing.client.get("/nowhere", headers={"User-Agent": "curl/8.0"})
    assert answer.text.startswith('{\n  "kind": "Status",\n')
    assert answer.json()["code"] == 404


def test_watches(standing: World) -> None:
    """The state, a bookmark, the end: frames in the form that was asked for."""
    query = f"{PODS}?watch=1&resourceVersion=0&timeoutSeconds=1"
    answer = standing.get(query, Accept=f"{PROTOBUF};stream=watch")
    assert answer.headers["content-type"] == f"{PROTOBUF};stream=watch"
    names, data = [], answer.content
    while data:
        size = int.from_bytes(data[:4], "big")
        event = oracle.CLASSES["WatchEvent"].FromString(data[4 : 4 + size])
        assert event.type == "ADDED"
        names.append(json.loads(json_of(event.object.raw))["metadata"]["name"])
        data = data[4 + size :]
    assert names == ["x", "y"]
    answer = standing.get(query, Accept=f"application/json;as=Table{G}")
    assert answer.headers["content-type"] == "application/json"
    tables = [json.loads(line)["object"] for line in answer.text.splitlines()]
    assert [table["rows"][0]["cells"][0] for table in tables] == ["x", "y"]
    assert tables[0]["columnDefinitions"]
    assert tables[1]["columnDefinitions"] is None


def large(name: str) -> bytes:
    return pod("a", name, app="x" * 50_000)


def ask(world: World, path: str) -> bytes:
    """Everything that comes until the connection ends, as it comes on the wire."""
    where = urlsplit(world.url)
    assert where.hostname is not None
    with socket.create_connection((where.hostname, where.port or 80), 10) as sock:
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        received = bytearray()
        while piece := sock.recv(1 << 16):
            received += piece
    return bytes(received)


def test_a_long_list_says_its_length(world: World) -> None:
    for i in range(10):
        world.model.put(pod_key("a", f"x{i}"), large(f"x{i}"))
    head, _, body = ask(world, PODS).partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head.lower()
    assert len(json.loads(body)["items"]) == 10
    world.model.put(pod_key("a", "z"), protobuf_of(large("z")))
    answer = world.get(PODS)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(answer.json()["items"]) == 11


def unreadable(name: str) -> bytes:
    """A pod in protobuf whose metadata can be read, and of whose containers one is cut short."""
    metadata = oracle.metadata_of(protobuf_of(pod("a", name)))
    spec = b"\x12\x03\x12\x01\xff"
    whole: bytes = oracle.CLASSES["Object"](metadata=metadata).SerializeToString() + spec
    return oracle.envelope("Pod", "v1", whole)


@pytest.mark.parametrize("looked_over", [0, 20_000])
def test_a_list_that_breaks_off_is_not_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, looked_over: int
) -> None:
    """Chunks that were sent are there, the one that would end them isn't: no client takes it for
    whole. The server goes on."""
    monkeypatch.setattr(json_list, "LOOKED_OVER_MAX", looked_over)
    for i in range(10):
        world.model.put(pod_key("a", f"x{i}"), large(f"x{i}"))
    world.model.put(pod_key("a", "y"), protobuf_of(large("y")))
    whole = ask(world, PODS)
    assert b"transfer-encoding: chunked" in whole.lower()
    assert whole.endswith(b"}\n\r\n0\r\n\r\n")
    world.model.put(pod_key("a", "z"), unreadable("z"))
    received = ask(world, PODS)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b'"name":"x0"' in body
    assert not received.endswith(b"0\r\n\r\n")
    with pytest.raises(httpx.RemoteProtocolError):
        world.get(PODS)
    assert world.get("/api/v1/namespaces/a/pods/x1").status_code == 200
    refused = world.get("/api/v1/namespaces/a/pods/z")
    assert refused.status_code == 406
    assert "/registry/pods/a/z" in status_in(refused)["message"]
    # In Protobuf it goes out as it is stored.
    assert world.get(PODS, Accept=PROTOBUF).status_code == 200


def test_a_short_list_that_cant_be_encoded_is_an_error(world: World) -> None:
    world.put_pod("a", "x")
    world.model.put(pod_key("a", "z"), unreadable("z"))
    answer = world.get(PODS)
    assert (answer.status_code, answer.json()["reason"]) == (406, "NotAcceptable")
    assert "/registry/pods/a/z" in answer.json()["message"]
    frames = world.frames(f"{PODS}?watch=1&timeoutSeconds=1&resourceVersion=0")
    assert [one["type"] for one in frames] == ["ADDED", "ERROR"]
    assert frames[1]["object"]["code"] == 406


@pytest.mark.parametrize(
    ("gate", "accept", "other"),
    [
        ("streaming_json", "application/json", PROTOBUF),
        ("streaming_protobuf", PROTOBUF, "application/json"),
    ],
)
def test_without_the_gate_a_list_is_made_before_it_is_sent(
    gate: str, accept: str, other: str
) -> None:
    """So its length is known, whatever it is made of, and what can't be encoded is an error."""
    with World(features=replace(Features(), **{gate: False})) as world:
        for i in range(10):
            world.model.put(pod_key("a", f"x{i}"), large(f"x{i}"))
        world.model.put(pod_key("a", "y"), protobuf_of(large("y")))
        plain = {"Accept-Encoding": "identity"}
        answer = world.get(PODS, Accept=accept, **plain)
        assert int(answer.headers["content-length"]) == len(answer.content)
        streamed = world.get(PODS, Accept=other, **plain)
        assert streamed.status_code == 200
        assert ("content-length" in streamed.headers) == (other == PROTOBUF)
        if accept == "application/json":
            assert answer.json()["items"][-1]["metadata"]["name"] == "y"
            world.model.put(pod_key("a", "z"), unreadable("z"))
            assert world.get(PODS).status_code == 406


def test_a_long_list_in_protobuf_of_objects_in_json(world: World) -> None:
    names = [f"x{i:03}" for i in range(application.MADE_ON_LOOP_MAX + 50)]
    for name in names:
        world.put_pod("a", name)
    answer = world.get(PODS, Accept=PROTOBUF)
    assert int(answer.headers["content-length"]) == len(answer.content)
    listed = oracle.CLASSES["List"].FromString(oracle.raw_of(answer.content))
    texts = [json_of(oracle.envelope("Pod", "v1", raw)) for raw in listed.items]
    assert [json.loads(text)["metadata"]["name"] for text in texts] == names
    world.model.put(pod_key("a", "z"), pod("a", "z").replace(b'"n1"', b"17"))
    refused = world.get(PODS, Accept=PROTOBUF)
    assert refused.status_code == 406
    assert "/registry/pods/a/z" in status_in(refused)["message"]
    assert world.get(PODS).status_code == 200


@pytest.mark.parametrize("leaves", ["disconnects", "fails"])
def test_who_leaves_in_the_middle_leaves_nothing_behind(leaves: str) -> None:
    class Elements(list[Element]):
        pass

    elements = Elements(
        Element(b"x%d" % i, pod("a", f"x{i}", app="x" * 50_000), 1, 1, 1) for i in range(100)
    )
    held = weakref.ref(elements)
    resource = BUILT_IN.get("", "v1", "pods")
    assert resource is not None
    form = Form(resource, "v1", True, Values())
    response = sending.sent(json_list.json_list(form, elements, PageMeta("1")), MediaType())
    sent: list[Message] = []

    async def run(response: Response) -> None:
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 4:
                if leaves == "fails":
                    raise OSError("gone")
                gone.set()
                await asyncio.sleep(10)

        await response({"type": "http", "method": "GET"}, receive, send)

    with suppress(OSError, ExceptionGroup):
        asyncio.run(run(response))
    assert len(sent) == 4
    del elements, response
    gc.collect()
    assert held() is None


def test_an_unknown_path_has_details_as_upstream() -> None:
    assert [*status_of(UnknownPath())][-2:] == ["details", "code"]

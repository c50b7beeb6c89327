"""Every built-in type in every form that can be asked for: one object, a list, a watch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from btreecache.codec.transcode import json_of, protobuf_of
from btreecache.encoding.media import MEDIA_TYPES
from btreecache.resources import Resource
from btreecache.server.caches import served
from tests.server.world import World

pytestmark = pytest.mark.interop

JSON, YAML, PROTOBUF = MEDIA_TYPES["json"], MEDIA_TYPES["yaml"], MEDIA_TYPES["protobuf"]
META = ";g=meta.k8s.io;v=v1"
RESOURCES = served(allow_secrets=True)
#: As the object is stored; every type both ways.
STORED = {"json": lambda text: text, "protobuf": protobuf_of}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(at_start=()) as made:
        yield made


def named(resource: Resource, version: str) -> dict[str, Any]:
    """The object of a type that says nothing but what it is."""
    where = {"namespace": "a"} if resource.namespaced else {}
    metadata = {"name": "x", **where, "labels": {"app": "web"}}
    return {"kind": resource.kind, "apiVersion": resource.group_version(version),
            "metadata": metadata}  # fmt: skip


def path_of(resource: Resource, version: str) -> str:
    base = f"/apis/{resource.group}/{version}" if resource.group else f"/api/{version}"
    return f"{base}{'/namespaces/a' if resource.namespaced else ''}/{resource.plural}"


def first_frame(world: World, path: str, accept: str) -> tuple[str, bytes]:
    """Content type and first frame of a watch."""
    with world.client.stream("GET", f"{path}?watch=1", headers={"Accept": accept}) as answer:
        assert answer.status_code == 200
        data = b""
        for chunk in answer.iter_raw():
            data += chunk
            if answer.headers["content-type"].startswith(JSON):
                if data.endswith(b"\n"):
                    break
            elif len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
                break
        return answer.headers["content-type"], data


def checked(answer: httpx.Response, content_type: str) -> bytes:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == content_type
    return answer.content


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("resource", RESOURCES.all, ids=lambda one: one.dotted)
def test_every_form(world: World, resource: Resource, form: str) -> None:
    version = resource.versions[0]
    wanted = named(resource, version)
    text = json.dumps(wanted, separators=(",", ":")).encode()
    revision = world.model.put(resource.key("a", "x"), STORED[form](text))
    wanted["metadata"]["resourceVersion"] = str(revision)
    path = path_of(resource, version)
    one = f"{path}/x"
    about = resource.kind, resource.group_version(version), wanted["metadata"]

    def tells(found: Any, *, kind: str = "", api_version: str = "") -> None:
        shown = {name: found["metadata"][name] for name in wanted["metadata"]}
        assert (kind or found["kind"], api_version or found["apiVersion"], shown) == about

    # The object itself.
    tells(json.loads(checked(world.get(one, Accept=JSON), JSON)))
    tells(json.loads(json_of(checked(world.get(one, Accept=PROTOBUF), PROTOBUF))))
    lines = checked(world.get(one, Accept=YAML), YAML).decode().splitlines()
    assert f"apiVersion: {resource.group_version(version)}" in lines
    assert f"kind: {resource.kind}" in lines
    listed = json.loads(checked(world.get(path, Accept=JSON), JSON))
    assert listed["kind"] == f"{resource.kind}List"
    tells(listed["items"][0], kind=about[0], api_version=about[1])
    packed = checked(world.get(path, Accept=PROTOBUF), PROTOBUF)
    assert f"{resource.kind}List".encode() in packed[:100]
    assert b"items:\n- " in checked(world.get(path, Accept=YAML), YAML)
    content_type, frame = first_frame(world, path, JSON)
    assert content_type == JSON
    tells(json.loads(frame)["object"])
    content_type, frame = first_frame(world, path, PROTOBUF)
    assert content_type == f"{PROTOBUF};stream=watch"
    assert resource.kind.encode() in frame
    assert world.get(f"{path}?watch=1", Accept=YAML).status_code == 406

    # As something else.
    table = f"{JSON};as=Table{META}"
    for asked in (one, path):
        shown = json.loads(checked(world.get(asked, Accept=table), JSON))
        assert shown["kind"] == "Table"
        assert shown["columnDefinitions"][0]["name"] in ("Name", "Last Seen")
        assert len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"])
        assert shown["rows"][0]["object"]["metadata"]["name"] == "x"
    assert json.loads(first_frame(world, path, table)[1])["object"]["kind"] == "Table"
    partial = f";as=PartialObjectMetadata{META}"
    some = f";as=PartialObjectMetadataList{META}"
    for media in (JSON, PROTOBUF, YAML):
        assert b"PartialObjectMetadata" in checked(world.get(one, Accept=media + partial), media)
        assert b"PartialObjectMetadataList" in checked(world.get(path, Accept=media + some), media)
        assert world.get(path, Accept=media + partial).status_code == 406
        assert world.get(one, Accept=media + some).status_code == 406
    for media in (JSON, PROTOBUF):
        assert b"PartialObjectMetadata" in first_frame(world, path, media + partial)[1]

    # In another version it would have to be converted.
    for other in resource.versions[1:]:
        refused = world.get(f"{path_of(resource, other)}/x")
        assert (refused.status_code, refused.json()["reason"]) == (406, "NotAcceptable")

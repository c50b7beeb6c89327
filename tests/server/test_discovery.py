"""Discovery over HTTP: the aggregated form beside the plain one, in every format, and 304."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from btreecache.codec.transcode import json_of
from btreecache.resources import parse_resource
from btreecache.server.documents import has
from tests.server.world import World

KIND = "as=APIGroupDiscoveryList"
V2 = f"application/json;g=apidiscovery.k8s.io;v=v2;{KIND}"
V2BETA1 = f"application/json;g=apidiscovery.k8s.io;v=v2beta1;{KIND}"
#: As kubectl asks.
KUBECTL = f"{V2},{V2BETA1},application/json"
PROTOBUF = "application/vnd.kubernetes.protobuf"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    cats = parse_resource("pets.io/v1/cats:Cat:namespaced")
    with World(resources=[cats], at_start=()) as made:
        yield made


def resources_in(document: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """By group, version and plural."""
    return {
        (group["metadata"].get("name", ""), version["version"], one["resource"]): one
        for group in document["items"]
        for version in group["versions"]
        for one in version["resources"]
    }


def test_the_aggregated_form_says_what_the_plain_one_says(world: World) -> None:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in ("/api", "/apis"):
        answer = world.get(path, Accept=KUBECTL)
        assert answer.headers["content-type"] == V2
        assert answer.json()["apiVersion"] == "apidiscovery.k8s.io/v2"
        for group in answer.json()["items"]:
            assert {one["freshness"] for one in group["versions"]} == {"Current"}
        found |= resources_in(answer.json())
    plain: dict[tuple[str, str, str], dict[str, Any]] = {}
    groups = world.get("/apis").json()["groups"]
    below = [("", "v1", "/api/v1")]
    below += [(g["name"], v["version"], f"/apis/{v['groupVersion']}")
              for g in groups for v in g["versions"]]  # fmt: skip
    for group, version, path in below:
        for one in world.get(path).json()["resources"]:
            plain[group, version, one["name"]] = one
    assert found.keys() == plain.keys()
    for (group, version, name), one in found.items():
        other = plain[group, version, name]
        assert one["responseKind"] == {"group": group, "version": version, "kind": other["kind"]}
        assert one["scope"] == ("Namespaced" if other["namespaced"] else "Cluster")
        assert one["singularResource"] == other["singularName"]
        for member in ("verbs", "shortNames", "categories"):
            assert one.get(member) == other.get(member)
    # The preferred version is the first.
    order = {g["name"]: [v["version"] for v in g["versions"]] for g in groups}
    listed = world.get("/apis", Accept=V2).json()["items"]
    assert {g["metadata"]["name"]: [v["version"] for v in g["versions"]] for g in listed} == order


@pytest.mark.parametrize(
    ("accept", "version"), [(V2, "v2"), (V2BETA1, "v2beta1"), (f"{V2BETA1},{V2}", "v2beta1")]
)
def test_the_version_asked_for_is_echoed(world: World, accept: str, version: str) -> None:
    answer = world.get("/apis", Accept=accept)
    assert f"v={version};" in answer.headers["content-type"]
    assert answer.json()["apiVersion"] == f"apidiscovery.k8s.io/{version}"


def test_other_paths_and_other_groups_have_the_plain_form_only(world: World) -> None:
    assert world.get("/api/v1", Accept=KUBECTL).json()["kind"] == "APIResourceList"
    assert world.get("/apis/apps", Accept=KUBECTL).json()["kind"] == "APIGroup"
    assert world.get("/apis/apps", Accept=V2).status_code == 406
    assert world.get("/apis", Accept=V2.replace("v=v2", "v=v3")).status_code == 406


def test_who_has_it_already_is_told_so(world: World) -> None:
    first = world.get("/apis", Accept=KUBECTL)
    tag = first.headers["etag"]
    assert (first.headers["vary"], first.headers["cache-control"]) == ("Accept", "public")
    assert len(tag) == 2 + 128
    again = world.get("/apis", Accept=KUBECTL, **{"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "content-type" not in again.headers
    other = world.get("/api", Accept=KUBECTL, **{"If-None-Match": tag})
    assert other.status_code == 200
    assert other.headers["etag"] != tag


@pytest.mark.parametrize(
    ("named", "has_it"),
    [
        (None, False), ("", False), ('"A"', True), ("A", False), ('W/"A"', True), ("*", True),
        ('"B", "A"', True), ('"AB"', False), ('"a"', False), (",,,", False), ('"B",*', False),
    ],
)  # fmt: skip
def test_if_none_match(named: str | None, has_it: bool) -> None:
    assert has(named, "A") is has_it


@pytest.mark.parametrize("path", ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"])
def test_every_format_says_the_same(world: World, path: str) -> None:
    plain = world.get(path).json()
    answer = world.get(path, Accept=f"{PROTOBUF},application/json")
    assert answer.headers["content-type"] == PROTOBUF
    read = json.loads(json_of(answer.content))
    read.pop("apiVersion")
    for group in (read, *read.get("groups", ())):
        assert not group.pop("serverAddressByClientCIDRs", None) or path == "/api"
    plain.pop("apiVersion", None)
    plain.pop("serverAddressByClientCIDRs", None)
    assert read == plain
    text = world.get(path, Accept="application/yaml")
    assert text.headers["content-type"] == "application/yaml"
    assert f"kind: {plain['kind']}\n" in text.text


@pytest.mark.parametrize("path", ["/api", "/apis"])
def test_the_aggregated_form_in_protobuf(world: World, path: str) -> None:
    answer = world.get(path, Accept=V2.replace("application/json", PROTOBUF))
    assert answer.headers["content-type"] == V2.replace("application/json", PROTOBUF)
    read = json.loads(json_of(answer.content))
    assert resources_in(read) == resources_in(world.get(path, Accept=V2).json())

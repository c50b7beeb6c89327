"""What paths ask for, every shape of them; what discovery says."""

from __future__ import annotations

import pytest

from btreecache.errors import BadRequest
from btreecache.resources import BUILT_IN, parse_resource
from btreecache.server import discovery
from btreecache.server.caches import is_typed, served
from btreecache.server.refusals import UnknownPath
from btreecache.server.routing import Group, GroupVersion, Objects, Page, route

RESOURCES = served(allow_secrets=True)
ROOT = b"/registry"


@pytest.mark.parametrize("page", [*Page])
def test_pages(page: Page) -> None:
    assert route(f"/{page.value}", RESOURCES) is page
    assert route(f"/{page.value}/", RESOURCES) is page


def test_every_resource_has_its_paths() -> None:
    for resource in RESOURCES.all:
        for version in resource.versions:
            base = f"/apis/{resource.group}/{version}" if resource.group else f"/api/{version}"
            everywhere = Objects(resource, version, "", "")
            assert route(f"{base}/{resource.plural}", RESOURCES) == everywhere
            assert everywhere.prefix(ROOT) == resource.prefix(ROOT)
            inside = f"{base}/namespaces/a/{resource.plural}"
            if resource.namespaced:
                one = Objects(resource, version, "a", "x")
                assert route(f"{inside}/x", RESOURCES) == one
                assert one.key(ROOT) == resource.key("a", "x")
                asked = route(inside, RESOURCES)
                assert isinstance(asked, Objects)
                assert asked.prefix(ROOT) == resource.prefix(ROOT) + b"a/"
                unknown = f"{base}/{resource.plural}/x"
            else:
                one = Objects(resource, version, "", "x")
                assert route(f"{base}/{resource.plural}/x", RESOURCES) == one
                assert one.key(ROOT) == resource.key("", "x")
                unknown = inside
            with pytest.raises(UnknownPath):
                route(unknown, RESOURCES)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere", "/api/v2", "/apis/apps/v9", "/apis/nope", "/apis//v1",
        "/apis/apps//deployments",
        "/api/v1//pods", "/api/v1/namespaces//pods", "/api/v1/namespaces/a/pods/x/log",
        "/api/v1/watch/pods", "/api/v1/namespaces/a/status", "/api/v1/pods/x", "/api//v1",
        "/apis/v1/pods", "/api/v1/namespaces/a/nodes", "/metric", "/openapi/v2",
        "/apis/events.k8s.io/v1/events",
    ],
)  # fmt: skip
def test_what_is_not_there(path: str) -> None:
    with pytest.raises(UnknownPath):
        route(path, RESOURCES)


@pytest.mark.parametrize("name", [".", "..", "a%b", "a\udcffb"])
def test_names_that_no_key_has(name: str) -> None:
    for path in (f"/api/v1/namespaces/{name}/pods", f"/api/v1/namespaces/a/pods/{name}"):
        with pytest.raises(BadRequest):
            route(path, RESOURCES)


def test_discovery_paths() -> None:
    assert route("/apis/apps", RESOURCES) == Group("apps")
    assert route("/api/v1/", RESOURCES) == GroupVersion("", "v1")
    assert route("/apis/apps/v1", RESOURCES) == GroupVersion("apps", "v1")


def test_a_configured_resource_is_found_and_replaces() -> None:
    pods = parse_resource("v1/pods:Pod:namespaced=/other/pods")
    cats = parse_resource("pets.io/v1/cats:Cat")
    known = served([pods, cats])
    assert known.get("", "v1", "pods") is pods
    assert is_typed(pods)
    assert not is_typed(cats)
    assert route("/apis/pets.io/v1/cats/tom", known) == Objects(cats, "v1", "", "tom")


def test_documents_name_every_resource_once() -> None:
    found = []
    groups = discovery.api_group_list(RESOURCES)["groups"]
    assert isinstance(groups, list)
    versions = [("", version) for version in RESOURCES.groups()[""]]
    for group in groups:
        assert group["preferredVersion"] == group["versions"][0]
        assert discovery.api_group(RESOURCES, group["name"])["versions"] == group["versions"]
        versions += [(group["name"], one["version"]) for one in group["versions"]]
    for group, version in versions:
        document = discovery.api_resource_list(RESOURCES, group, version)
        assert ("apiVersion" in document) == bool(group)
        listed = document["resources"]
        assert isinstance(listed, list)
        for one in listed:
            assert one["verbs"] == ["get", "list", "watch"]
            found.append((group, version, one["name"]))
    wanted = {
        (one.group, version, one.plural)
        for one in BUILT_IN.all
        for version in one.versions
        if one.group != "events.k8s.io"
    }
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_a_resource_as_a_real_server_describes_it() -> None:
    document = discovery.api_resource_list(RESOURCES, "", "v1")
    pods = next(one for one in document["resources"] if one["name"] == "pods")  # type: ignore[attr-defined]
    assert pods == {
        "name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod",
        "verbs": ["get", "list", "watch"], "shortNames": ["po"], "categories": ["all"],
    }  # fmt: skip

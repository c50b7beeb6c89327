"""Custom resources come and go with their definitions, while a server serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy

import pytest

from tests.server.world import World
from tests.test_definitions import CATS

DEFINED = b"/registry/apiextensions.k8s.io/customresourcedefinitions/"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
ROOT = "/apis/pets.io"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(at_start=(), follows_definitions=True) as made:
        yield made


def put(world: World, value: object, name: str = "cats.pets.io") -> None:
    world.model.put(DEFINED + name.encode(), json.dumps(value).encode())


def put_cat(world: World, name: str, version: str = "v1", *, canonical: bool = True) -> int:
    cat = {"apiVersion": f"pets.io/{version}", "kind": "Cat", "legs": len(name),
           "metadata": {"name": name, "namespace": "a"}, "spec": {"color": "black"}}  # fmt: skip
    text = json.dumps(cat, separators=(",", ":")) if canonical else json.dumps({"x": 1} | cat)
    return world.model.put(f"/registry/pets.io/cats/a/{name}".encode(), text.encode())


@pytest.fixture
def cats(world: World) -> Iterator[World]:
    """The world with the definition, and three cats: two of them are stored as an older version."""
    put(world, CATS)
    put_cat(world, "tom")
    put_cat(world, "felix", "v1beta1")
    put_cat(world, "minka", "v0", canonical=False)
    world.wait_for(lambda: world.get(f"{ROOT}/v1/cats").status_code == 200)
    yield world
    for name in ("tom", "felix", "minka"):
        world.model.delete(f"/registry/pets.io/cats/a/{name}".encode())
    world.model.delete(DEFINED + b"cats.pets.io")
    world.wait_for(lambda: world.get(ROOT).status_code == 404)


def test_a_definition_comes_and_goes(world: World) -> None:
    tag = world.get("/apis", Accept=AGGREGATED).headers["etag"]
    assert world.get(f"{ROOT}/v1/cats").status_code == 404
    put_cat(world, "tom")
    pending = deepcopy(CATS)
    del pending["status"]
    put(world, pending)
    put(world, CATS)
    world.wait_for(lambda: world.get(f"{ROOT}/v1/cats").status_code == 200)
    assert world.names(f"{ROOT}/v1/namespaces/a/cats") == ["tom"]
    group = world.get(ROOT).json()
    assert [one["version"] for one in group["versions"]] == ["v1", "v1beta1"]
    (listed,) = world.get(f"{ROOT}/v1").json()["resources"]
    assert listed == {
        "name": "cats", "singularName": "cat", "namespaced": True, "kind": "Cat",
        "verbs": ["get", "list", "watch"], "shortNames": ["ct"], "categories": ["all"],
    }  # fmt: skip
    again = world.get("/apis", Accept=AGGREGATED, **{"If-None-Match": tag})
    assert again.status_code == 200
    assert "pets.io" in [one["metadata"]["name"] for one in again.json()["items"]]
    with world.watch(f"{ROOT}/v1/cats?watch=1") as events:
        assert next(events)["object"]["metadata"]["name"] == "tom"
        world.model.delete(DEFINED + b"cats.pets.io")
        assert [*events] == []  # it ends, and no error
    world.wait_for(lambda: world.get(ROOT).status_code == 404)
    assert world.get(f"{ROOT}/v1/namespaces/a/cats/tom").status_code == 404
    put(world, CATS)
    world.wait_for(lambda: world.get(f"{ROOT}/v1/cats").status_code == 200)
    assert world.names(f"{ROOT}/v1/cats") == ["tom"]
    world.model.delete(DEFINED + b"cats.pets.io")
    world.wait_for(lambda: world.get(ROOT).status_code == 404)


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_versions_differ_by_their_api_version(cats: World, version: str) -> None:
    listed = cats.get(f"{ROOT}/{version}/cats").json()
    assert (listed["kind"], listed["apiVersion"]) == ("CatList", f"pets.io/{version}")
    assert [one["metadata"]["name"] for one in listed["items"]] == ["felix", "minka", "tom"]
    assert {one["apiVersion"] for one in listed["items"]} == {f"pets.io/{version}"}
    assert [one["spec"] for one in listed["items"]] == [{"color": "black"}] * 3
    for one in listed["items"]:
        name = one["metadata"]["name"]
        assert cats.get(f"{ROOT}/{version}/namespaces/a/cats/{name}").json() == one
    with cats.watch(f"{ROOT}/{version}/cats?watch=1") as events:
        assert [next(events)["object"] for _ in range(3)] == listed["items"]
    assert cats.get(f"{ROOT}/v0/cats").status_code == 404


def test_columns_are_those_of_the_version(cats: World) -> None:
    table = cats.get(f"{ROOT}/v1beta1/cats", Accept=TABLE).json()
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Legs"]
    assert [row["cells"] for row in table["rows"]] == [["felix", 5], ["minka", 5], ["tom", 3]]
    plain = cats.get(f"{ROOT}/v1/cats", Accept=TABLE).json()
    assert [one["name"] for one in plain["columnDefinitions"]] == ["Name", "Age"]


def test_fields_that_may_be_selected(cats: World) -> None:
    found = cats.names(f"{ROOT}/v1/cats?fieldSelector=spec.color%3Dblack,metadata.name%3Dtom")
    assert found == ["tom"]
    assert cats.names(f"{ROOT}/v1/cats?fieldSelector=spec.color%3Dred") == []
    assert cats.get(f"{ROOT}/v1/cats?fieldSelector=spec.legs%3D3").status_code == 400


def test_another_definition_is_another_resource(cats: World) -> None:
    other = deepcopy(CATS)
    other["spec"]["scope"] = "Cluster"
    put(cats, other)
    inside = f"{ROOT}/v1/namespaces/a/cats"
    cats.wait_for(lambda: cats.get(f"{ROOT}/v1/cats/tom").json().get("reason") == "NotFound")
    cats.wait_for(lambda: cats.get(inside).json().get("details") == {})
    webhook = deepcopy(CATS)
    webhook["spec"]["conversion"] = {"strategy": "Webhook"}
    put(cats, webhook)
    cats.wait_for(lambda: cats.get(f"{inside}/tom").status_code == 200)
    assert cats.get(f"{ROOT}/v1beta1/cats").status_code == 404
    refused = cats.get(f"{inside}/felix")
    assert (refused.status_code, refused.json()["reason"]) == (406, "NotAcceptable")


def test_what_is_built_in_or_unreadable_is_not_defined(
    cats: World, caplog: pytest.LogCaptureFixture
) -> None:
    text = json.dumps(CATS).replace("pets.io", "apps").replace("cats", "deployments")
    cats.model.put(DEFINED + b"deployments.apps", text.encode())
    cats.model.put(DEFINED + b"b\nad", b"nonsense")
    dogs = json.loads(json.dumps(CATS).replace("cats", "dogs").replace("Cat", "Dog"))
    put(cats, dogs, "dogs.pets.io")
    cats.wait_for(lambda: cats.get(f"{ROOT}/v1/dogs").status_code == 200)
    (listed,) = [
        one for one in cats.get("/apis/apps/v1").json()["resources"] if one["name"] == "deployments"
    ]
    assert listed["kind"] == "Deployment"
    assert [one.message for one in caplog.records if "b\\nad" in one.message]
    for name in (b"deployments.apps", b"b\nad", b"dogs.pets.io"):
        cats.model.delete(DEFINED + name)
    cats.wait_for(lambda: cats.get(f"{ROOT}/v1/dogs").status_code == 404)

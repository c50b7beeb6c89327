"""OpenAPI: every document is well formed, describes the paths that are served and the objects that
real servers answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from btreecache.resources import parse_resource
from btreecache.server import openapi
from btreecache.server.caches import served
from btreecache.server.routing import Objects, route
from tests.codec.objects import recorded
from tests.server.world import World

CATS = parse_resource("pets.io/v1/cats:Cat:namespaced")
RESOURCES = served([CATS], allow_secrets=True)
VERSIONS = [(group, version) for group, found in RESOURCES.groups().items() for version in found]

#: Keywords of a schema of OpenAPI 3.0 that are used here, and the types of their values.
KEYWORDS = {
    "type": str, "format": str, "properties": dict, "items": dict, "additionalProperties": dict,
    "required": list, "oneOf": list, "enum": list,
}  # fmt: skip
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
         "object": dict}  # fmt: skip


@pytest.fixture(scope="module")
def documents() -> dict[tuple[str, str], Any]:
    return {name: openapi.document(RESOURCES, *name, "1") for name in VERSIONS}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(resources=[CATS], at_start=()) as made:
        yield made


def resolved(document: Any, ref: str) -> Any:
    found = document
    for step in ref.removeprefix("#/").split("/"):
        found = found[step]
    return found


def check_schema(document: Any, schema: Any) -> None:
    """As the specification's own schema of schemas has it."""
    assert isinstance(schema, dict)
    if "$ref" in schema:
        assert [*schema] == ["$ref"]
        assert isinstance(resolved(document, schema["$ref"]), dict)
        return
    for keyword, value in schema.items():
        if not keyword.startswith("x-kubernetes-"):
            assert isinstance(value, KEYWORDS[keyword]), keyword
    assert schema.get("type", "object") in TYPES
    assert ("items" in schema) == (schema.get("type") == "array")
    assert {*schema.get("required", ())} <= {*schema.get("properties", ())}
    inner = [*schema.get("properties", {}).values(), *schema.get("oneOf", ())]
    inner += [schema[one] for one in ("items", "additionalProperties") if one in schema]
    for one in inner:
        check_schema(document, one)


def test_every_document_is_well_formed(documents: dict[tuple[str, str], Any]) -> None:
    for document in documents.values():
        assert [*document] == ["openapi", "info", "paths", "components"]
        assert re.fullmatch(r"3\.0\.\d", document["openapi"])
        components = document["components"]
        for part in components.values():
            assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in part)
        for schema in components["schemas"].values():
            check_schema(document, schema)
        identities = []
        for path, item in document["paths"].items():
            names = [one["name"] for one in item.get("parameters", ())]
            assert sorted(names) == sorted(re.findall(r"\{(\w+)\}", path))
            operation = item["get"]
            identities.append(operation["operationId"])
            for parameter in operation["parameters"]:
                assert resolved(document, parameter["$ref"])["in"] == "query"
            for content in operation["responses"]["200"]["content"].values():
                check_schema(document, content["schema"])
            assert resolved(document, operation["responses"]["default"]["$ref"])["description"]
        assert len({*identities}) == len(identities)


def test_every_resource_and_path_is_described(documents: dict[tuple[str, str], Any]) -> None:
    described = set()
    for document in documents.values():
        for path in document["paths"]:
            target = route(path.format(namespace="a", name="x"), RESOURCES)
            assert isinstance(target, Objects)
            described.add((target.resource.dotted, target.version, bool(target.name)))
    assert described == {
        (one.dotted, version, named)
        for one in RESOURCES.all
        for version in one.versions
        for named in (False, True)
    }


def fits(document: Any, schema: Any, value: Any, path: str = "") -> None:
    """A value has the types of its schema, and no member that isn't there."""
    if "$ref" in schema:
        schema = resolved(document, schema["$ref"])
    if "oneOf" in schema:
        assert any(isinstance(value, TYPES[one["type"]]) for one in schema["oneOf"]), path
        return
    if "type" not in schema:
        return
    if value is None:
        return  # what isn't there, as Go writes some of it
    assert isinstance(value, TYPES[schema["type"]]), path
    if "properties" in schema:
        for name, inner in value.items():
            assert name in schema["properties"], f"{path}.{name}"
            fits(document, schema["properties"][name], inner, f"{path}.{name}")
    elif "additionalProperties" in schema:
        for name, inner in value.items():
            fits(document, schema["additionalProperties"], inner, f"{path}.{name}")
    elif "items" in schema:
        for inner in value:
            fits(document, schema["items"], inner, f"{path}[]")


def test_what_real_servers_answer_fits(documents: dict[tuple[str, str], Any]) -> None:
    fitted = 0
    for one in recorded():
        value = json.loads(one.json)
        group, _, version = value["apiVersion"].rpartition("/")
        document = documents.get((group, version))
        if document is None:
            continue
        schema = document["components"]["schemas"].get(
            f"{value['apiVersion'].replace('/', '.')}.{value['kind']}"
        )
        if schema is not None:
            assert schema["x-kubernetes-group-version-kind"] == [
                {"group": group, "version": version, "kind": value["kind"]}
            ]
            fits(document, schema, value)
            fitted += 1
    assert fitted >= 10


def test_the_index_leads_to_every_document(world: World) -> None:
    index = world.get("/openapi/v3")
    paths = index.json()["paths"]
    plain = served([CATS], allow_secrets=True)
    assert {*paths} == {openapi.path_of(g, v) for g, found in plain.groups().items() for v in found}
    for path in ("api/v1", "apis/apps/v1", "apis/pets.io/v1"):
        url = paths[path]["serverRelativeURL"]
        answer = world.get(url)
        assert answer.json()["openapi"] == "3.0.0"
        assert "immutable" in answer.headers["cache-control"]
        tag = answer.headers["etag"]
        assert url.endswith("?hash=" + tag.strip('"'))
        plain_answer = world.get(f"/openapi/v3/{path}")
        assert plain_answer.content == answer.content
        assert plain_answer.headers["cache-control"] == "public"
        assert world.get(f"/openapi/v3/{path}", **{"If-None-Match": tag}).status_code == 304
        other = world.get(f"/openapi/v3/{path}?hash=old")
        assert (other.status_code, other.headers["location"]) == (301, url)
    again = world.get("/openapi/v3", **{"If-None-Match": index.headers["etag"]})
    assert again.status_code == 304
    cats = world.get("/openapi/v3/apis/pets.io/v1").json()["components"]["schemas"]
    assert cats["pets.io.v1.Cat"]["x-kubernetes-preserve-unknown-fields"] is True


@pytest.mark.parametrize(
    "path",
    ["/openapi/v2", "/openapi/v3/api", "/openapi/v3/api/v2", "/openapi/v3/apis/apps",
     "/openapi/v3/apis/nope/v1", "/openapi/v3/apis//v1", "/openapi/v3/apis/apps/v1/x", "/openapi"],
)  # fmt: skip
def test_what_has_no_document(world: World, path: str) -> None:
    answer = world.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")

"""The bytes served are those of a real API server's answer, and the source's can be had back."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from btreecache.codec import Kubernetes, strip_managed_fields
from btreecache.codec.kubernetes import VERSION
from btreecache.fields import fields_of
from tests.codec.objects import Field, Recorded, raw, recorded

OBJECTS = recorded()
IDS = [one.key.decode() for one in OBJECTS]
POD = Kubernetes(
    [
        Field("spec.nodeName", ("spec", "nodeName")),
        Field("status.phase", ("status", "phase"), "Unknown"),
        Field("spec.hostNetwork", ("spec", "hostNetwork"), "false"),
        Field("metadata.uid", ("metadata", "uid")),
    ]
)
PLAIN = Kubernetes()

#: The server filled in a default (status.phase) that is not stored: not the codec's to do.
DEFAULTED = b"/registry/persistentvolumeclaims/shop/claim"


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_served_as_the_api_server_answered(one: Recorded) -> None:
    served = PLAIN.decode(one.element)
    assert served.problem is None
    assert served.source_value() == one.stored
    answered = one.protobuf if one.stored.startswith(b"k8s\0") else one.json.strip()
    assert (served.value == answered) is (one.key != DEFAULTED)
    assert b"%d" % one.revision in served.value


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_json_gets_its_version_where_the_server_writes_it(one: Recorded) -> None:
    assert one.as_stored_json != one.json
    served = PLAIN.decode(raw(one.as_stored_json, one.revision))
    assert served.value + b"\n" == one.json
    assert served.source_value() == one.as_stored_json


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_both_forms_give_the_same_metadata(one: Recorded) -> None:
    codec = POD if one.kind == "Pod" else PLAIN
    stored, asked = codec.decode(one.element), codec.decode(raw(one.json, one.revision))
    assert (stored.labels, stored.fields) == (asked.labels, asked.fields)
    metadata = json.loads(one.json)["metadata"]
    assert stored.fields[:2] == (metadata["name"], metadata.get("namespace", ""))
    labels = metadata.get("labels", {})
    assert stored.labels == tuple(x for name in sorted(labels) for x in (name, labels[name]))


#: VERSION -> what it makes. Archives hold that: another result needs another version.
MADE_BY = {1: "ba944bc71f0e9ca3"}


def test_what_is_made_of_an_object_changes_with_the_version() -> None:
    made = sha256()
    for one in OBJECTS:
        for value in (one.stored, one.json, one.as_stored_json, one.json.replace(b":", b" : ")):
            for codec in (PLAIN, POD):
                it = codec.decode(raw(value, one.revision, one.key))
                made.update(repr((it.value, it.labels, it.fields, it.undo)).encode())
    assert {VERSION: made.hexdigest()[:16]}.items() <= MADE_BY.items()


def test_a_recipe_is_of_the_class_and_the_fields() -> None:
    class Own(Kubernetes):
        pass

    recipes = [PLAIN.recipe, POD.recipe, Kubernetes([Field("metadata.uid", ("kind",))]).recipe]
    assert len({*recipes}) == 3
    assert Kubernetes().recipe == PLAIN.recipe != b"" == Own().recipe


def test_declared_fields() -> None:
    fields = {one.key: POD.decode(one.element).fields for one in OBJECTS if one.kind == "Pod"}
    assert POD.fields == (
        "metadata.name", "metadata.namespace",
        "spec.nodeName", "status.phase", "spec.hostNetwork", "metadata.uid",
    )  # fmt: skip
    assert fields[b"/registry/pods/shop/full"][:5] == ("full", "shop", "node-1", "Running", "true")
    assert fields[b"/registry/pods/shop/bare"][:5] == ("bare", "shop", "", "Pending", "false")


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_managed_fields_are_taken_out_and_nothing_else(one: Recorded) -> None:
    want = json.loads(one.json)
    managed = want["metadata"].pop("managedFields", None)
    for element in (PLAIN.decode(raw(one.json, one.revision)), PLAIN.decode(one.element)):
        stripped = strip_managed_fields(element)
        assert stripped.labels == element.labels
        assert stripped.fields == element.fields
        if managed is None:
            assert stripped is element
            continue
        assert len(stripped.value) < len(element.value)
        assert b"f:metadata" not in stripped.value or b"f:metadata" not in element.value
        assert strip_managed_fields(stripped) is stripped
        with pytest.raises(LookupError):
            stripped.source_value()
        if element.value.startswith(b"{"):
            assert json.loads(stripped.value) == want
            assert list(json.loads(stripped.value)["metadata"]) == list(want["metadata"])
        else:
            again = PLAIN.decode(raw(stripped.value, one.revision))
            assert again.value == stripped.value
            assert (again.labels, again.fields) == (element.labels, element.fields)


@pytest.mark.parametrize("resource", ["pods", "nodes", "namespaces", "secrets"])
def test_the_fields_of_core_types(resource: str) -> None:
    """As the table of fields has them: several paths, indexes, defaults; from both forms alike."""
    declared = fields_of("", resource)
    kind = {"pods": "Pod", "nodes": "Node", "namespaces": "Namespace", "secrets": "Secret"}
    codec = Kubernetes(declared.fields)
    names = [field.name for field in declared.fields]
    seen = 0
    for one in OBJECTS:
        if one.kind == kind[resource]:
            seen += 1
            want = dict(zip(names, declared.values(json.loads(one.json)), strict=True))
            for element in (one.element, raw(one.json)):
                found = dict(zip(codec.fields, codec.decode(element).fields, strict=True))
                assert {name: found[name] for name in names} == want
    assert seen

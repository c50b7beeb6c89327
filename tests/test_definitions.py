"""CustomResourceDefinitions, as API servers store them and as nobody should."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache.codec.base import Unreadable
from btreecache.definitions import resource_of
from btreecache.resources import PrinterColumn

#: As apiextensions.k8s.io/v1 has it; both versions are served, v1 is stored.
CATS: dict[str, Any] = {
    "kind": "CustomResourceDefinition",
    "apiVersion": "apiextensions.k8s.io/v1",
    "metadata": {"name": "cats.pets.io"},
    "spec": {
        "group": "pets.io",
        "names": {"plural": "cats", "kind": "Cat"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1beta1", "served": True, "storage": False,
                "additionalPrinterColumns": [
                    {"name": "Legs", "type": "integer", "jsonPath": ".legs", "priority": 1},
                ],
                "selectableFields": [{"jsonPath": ".spec.color"}],
            },
            {"name": "v1", "served": True, "storage": True},
            {"name": "v0", "served": False, "storage": False},
        ],
        "conversion": {"strategy": "None"},
    },
    "status": {
        "acceptedNames": {
            "plural": "cats", "singular": "cat", "kind": "Cat", "listKind": "CatList",
            "shortNames": ["ct"], "categories": ["all"],
        },
        "conditions": [
            {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"},
        ],
        "storedVersions": ["v1"],
    },
}  # fmt: skip

#: The same as v1beta1, which API servers prefer for storage: what versions share stands once.
OLD: dict[str, Any] = {
    **CATS,
    "apiVersion": "apiextensions.k8s.io/v1beta1",
    "spec": {
        "group": "pets.io", "version": "v1", "scope": "Cluster",
        "names": {"plural": "cats", "kind": "Cat"},
        "versions": [{"name": "v1", "served": True, "storage": True}],
        "additionalPrinterColumns": [{"name": "Legs", "type": "integer", "JSONPath": ".legs"}],
    },
}  # fmt: skip


def read(definition: object) -> Any:
    return resource_of(json.dumps(definition).encode())


def test_a_definition_is_the_resource_that_it_makes() -> None:
    found = read(CATS)
    assert (found.group, found.plural, found.kind) == ("pets.io", "cats", "Cat")
    assert (found.singular, found.list_kind, found.dotted) == ("cat", "CatList", "cats.pets.io")
    assert found.namespaced
    assert found.versions == ("v1", "v1beta1")
    assert found.prefix() == b"/registry/pets.io/cats/"
    assert (found.short_names, found.categories) == (("ct",), ("all",))
    assert found.custom.renamed == ("v1beta1", "v1", "v0")
    assert found.custom.columns_of("v1beta1") == (
        PrinterColumn("Legs", "integer", ".legs", "", "", 1),
    )
    assert found.custom.columns_of("v1") == ()
    assert found.custom.selectable == (".spec.color",)
    assert hash(found) == hash(read(CATS))


def test_as_v1beta1() -> None:
    found = read(OLD)
    assert not found.namespaced
    assert found.versions == ("v1",)
    assert found.custom.columns_of("v1") == (PrinterColumn("Legs", "integer", ".legs"),)
    older = deepcopy(OLD)
    del older["spec"]["versions"]
    assert read(older) == found


def test_with_a_webhook_only_what_is_stored_is_served() -> None:
    other = deepcopy(CATS)
    other["spec"]["conversion"] = {"strategy": "Webhook", "webhook": {"clientConfig": {}}}
    found = read(other)
    assert found.versions == ("v1",)
    assert found.custom.renamed == ()
    other["spec"]["versions"][1]["served"] = False
    assert read(other) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), None),
        (("status", "acceptedNames"), None),
        (("status", "conditions"), []),
        (("status", "conditions", 1, "status"), "False"),
        (("status", "conditions", 1, "type"), "Terminating"),
        (("spec", "versions"), [{"name": "v1", "served": False, "storage": True}]),
    ],
)
def test_what_is_not_served_yet_makes_no_resource(path: tuple[Any, ...], value: object) -> None:
    assert read(altered(path, value)) is None


def altered(path: tuple[Any, ...], value: object) -> Any:
    """The definition with something else at one place."""
    whole = deepcopy(CATS)
    inner: Any = whole
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return whole


V = ("spec", "versions")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "name"), "dogs.pets.io"),
        (("spec", "group"), "pets.io/../apps"),
        (("spec", "group"), ""),
        (("spec", "group"), 7),
        (("spec", "scope"), "Everywhere"),
        (("status", "acceptedNames", "plural"), "../../minions"),
        (("status", "acceptedNames", "plural"), "Cats"),
        (("status", "acceptedNames", "kind"), ""),
        (("status", "acceptedNames", "kind"), 'Cat","x":"'),
        (("status", "acceptedNames", "listKind"), "a b"),
        (("status", "acceptedNames", "singular"), "a/b"),
        (("status", "acceptedNames", "shortNames"), ["x", "\n"]),
        (("status", "acceptedNames", "shortNames"), "ct"),
        (("status", "acceptedNames", "categories"), ["all"] * 101),
        (("status", "conditions"), {"Established": "True"}),
        (V, None),
        (V, []),
        (V, [{"name": "v1", "served": True, "storage": False}]),
        (V, [{"name": f"v{n}", "served": True, "storage": n == 1} for n in range(201)]),
        ((*V, 0, "storage"), True),
        ((*V, 0, "name"), "v1"),
        ((*V, 0, "name"), "v1/pods"),
        ((*V, 0, "name"), ""),
        ((*V, 0, "served"), "yes"),
        ((*V, 0, "additionalPrinterColumns"), [{"name": "x"}]),
        ((*V, 0, "additionalPrinterColumns", 0, "priority"), "1"),
        ((*V, 0, "selectableFields"), [{"jsonPath": ".a[0]"}]),
        ((*V, 0, "selectableFields"), [{"jsonPath": ".a"}] * 9),
        (("spec", "conversion"), "None"),
    ],
)
def test_half_a_definition_is_none(path: tuple[Any, ...], value: object) -> None:
    with pytest.raises(Unreadable):
        read(altered(path, value))


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"metadata":{"name":"\xff"}}'],
)
def test_no_definition_at_all(text: bytes) -> None:
    with pytest.raises(Unreadable):
        resource_of(text)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.data())
def test_anything_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    whole = deepcopy(data.draw(st.sampled_from([CATS, OLD])))
    inner: Any = whole
    while True:
        step = data.draw(
            st.sampled_from([*inner] if isinstance(inner, dict) else [*range(len(inner))])
        )
        if not inner[step] or not isinstance(inner[step], dict | list) or data.draw(st.booleans()):
            break
        inner = inner[step]
    inner[step] = data.draw(ANYTHING)
    try:
        found = read(whole)
    except Unreadable:
        return
    if found is not None:
        assert found.prefix().startswith(b"/registry/pets.io/")
        assert found.versions

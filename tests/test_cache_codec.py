"""A cache with a codec, a transform and indexes: what is stored, what is found, what it counts."""

from __future__ import annotations

import json
from random import Random

import pytest

from btreecache import Bounds, Cache, Element
from btreecache.codec import Kubernetes, strip_managed_fields
from btreecache.index import field_index, label_index
from tests.fakes import batch, delete, element, put

PREFIX = b"/registry/pods/"
FIELDS = Kubernetes().fields


def pod(name: str, namespace: str, **labels: str) -> bytes:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}).encode()


def key(name: str, namespace: str) -> bytes:
    return PREFIX + f"{namespace}/{name}".encode()


def cache_of(**options: object) -> Cache:
    indexes = [label_index("app"), field_index("metadata.namespace", 1)]
    return Cache(PREFIX, codec=Kubernetes(), indexes=indexes, bounds=Bounds(age_s=None), **options)  # type: ignore[arg-type]


def test_what_is_listed_and_what_is_applied_go_through_the_codec() -> None:
    cache = cache_of()
    cache.replace(10, [element(key("a", "x"), pod("a", "x", app="web"), 3)])
    cache.apply(batch(11, put(key("b", "y"), pod("b", "y", app="db"), 11)))
    for name, namespace, app, revision in (("a", "x", "web", 3), ("b", "y", "db", 11)):
        kept = cache.get(key(name, namespace))
        assert kept is not None
        assert json.loads(kept.value)["metadata"]["resourceVersion"] == str(revision)
        assert kept.source_value() == pod(name, namespace, app=app)
        assert kept.labels == ("app", app)
        assert dict(zip(FIELDS, kept.fields, strict=True))["metadata.name"] == name


def test_unreadable_objects_are_kept_named_and_forgotten_when_mended() -> None:
    cache = cache_of()
    cache.replace(
        10, [element(key("bad", "x"), b"{", 3), element(key("good", "x"), pod("g", "x"), 4)]
    )
    assert list(cache.unreadable) == [key("bad", "x")]
    kept = cache.get(key("bad", "x"))
    assert kept is not None
    assert kept.value == b"{"
    cache.apply(batch(11, put(key("worse", "x"), b"\xff", 11)))
    assert list(cache.unreadable) == [key("bad", "x"), key("worse", "x")]
    cache.apply(batch(12, delete(key("bad", "x"))))
    cache.apply(batch(13, put(key("worse", "x"), pod("worse", "x"), 13, created=11, version=2)))
    assert cache.unreadable == {}
    cache.replace(20, [element(key("bad", "x"), b"[]", 3)])
    assert list(cache.unreadable) == [key("bad", "x")]


def test_a_transform_sees_every_element_after_the_codec() -> None:
    seen: list[Element] = []

    def transform(kept: Element) -> Element:
        seen.append(kept)
        return strip_managed_fields(kept)

    cache = cache_of(transform=transform)
    cache.replace(10, [element(key("a", "x"), pod("a", "x"), 3)])
    cache.apply(batch(11, put(key("b", "x"), pod("b", "x"), 11)))
    assert [json.loads(kept.value)["metadata"]["resourceVersion"] for kept in seen] == ["3", "11"]


@pytest.mark.parametrize("seed", range(5))
def test_the_indexes_belong_to_every_snapshot(seed: int) -> None:
    """I12: at each retained revision an index finds what a scan finds."""
    rng, cache = Random(seed), cache_of()
    cache.replace(1, [])
    for revision in range(2, 200):
        name, namespace = f"p{rng.randrange(20)}", rng.choice("xyz")
        known = cache.get(key(name, namespace))
        if known and rng.random() < 0.4:
            cache.apply(batch(revision, delete(key(name, namespace))))
        else:
            made, version = (known.create_revision, known.version) if known else (revision, 0)
            value = pod(name, namespace, app=rng.choice(["web", "db", "job"]))
            cache.apply(
                batch(revision, put(key(name, namespace), value, revision, made, version + 1))
            )
        if revision == 100:
            cache.replace(revision, [*cache.snapshot()], as_batch=False)
    for revision in range(100, 200):
        snapshot = cache.snapshot(revision)
        for app in ("web", "db", "none"):
            wanted = [kept for kept in snapshot if kept.labels == ("app", app)]
            page = snapshot.select(
                lambda kept, app=app: kept.labels == ("app", app), [("l:app", app)]
            )
            assert page.elements == wanted
        choice = snapshot.choose([("f:metadata.namespace", "x")], PREFIX)
        assert choice.candidates <= len(snapshot)

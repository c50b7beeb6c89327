"""serve_as: one form in the cache, whatever the source holds."""

from __future__ import annotations

import json

import pytest

from btreecache import Cache, Element
from btreecache.codec import Kubernetes
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.codec.revision import with_revision
from btreecache.codec.serve_as import serve_as
from btreecache.codec.transcode import json_of, protobuf_of
from btreecache.event import Batch, Event
from tests.codec.objects import recorded

POD = next(one for one in recorded() if one.kind == "Pod")


def cache(form: str) -> Cache:
    return Cache(codec=Kubernetes(), transform=serve_as(form))  # type: ignore[arg-type]


def test_protobuf_is_served_as_json_with_its_revision() -> None:
    found = cache("json")
    found.replace(9, [Element(POD.key, POD.stored, 7, 3, 1)])
    element = found.get(POD.key)
    assert element is not None
    served = json.loads(element.value)
    assert served["metadata"]["resourceVersion"] == "7"
    assert served["spec"] == json.loads(POD.json)["spec"]
    assert element.fields == ("bare", "shop")
    assert element.digest() == Element(POD.key, POD.stored, 7, 3, 1).digest(), "checks still hold"
    with pytest.raises(LookupError):
        element.source_value()


def test_json_is_served_as_protobuf() -> None:
    text = json_of(POD.stored)
    found = cache("protobuf")
    found.replace(9, [Element(POD.key, text, 7, 3, 1)])
    element = found.get(POD.key)
    assert element is not None
    assert element.value.startswith(MAGIC)
    assert json.loads(json_of(element.value))["metadata"]["resourceVersion"] == "7"
    assert protobuf_of(text) != element.value


def test_what_is_of_the_form_or_cannot_be_made_stays() -> None:
    own = b'{"kind":"Cat","apiVersion":"pets.io/v1","metadata":{"name":"x"}}'
    for form, value in (("json", own), ("protobuf", own), ("json", b"{"), ("json", b"")):
        found = cache(form)
        found.replace(9, [Element(b"/k", value, 7, 3, 1)])
        plain = Cache(codec=Kubernetes())
        plain.replace(9, [Element(b"/k", value, 7, 3, 1)])
        assert found.get(b"/k") == plain.get(b"/k")


def test_a_deleted_object_has_the_revision_of_its_deletion() -> None:
    found = cache("json")
    found.replace(9, [Element(POD.key, POD.stored, 7, 3, 1)])
    found.apply(Batch(10, (Event(POD.key, None),)))
    (batch,) = found.state.readable().batches(9, 10)
    previous = batch.events[0].previous
    assert previous is not None
    assert json.loads(with_revision(previous, 10).value)["metadata"]["resourceVersion"] == "10"

"""A list of any size takes the memory of a few chunks, in every form and however it is stored."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from btreecache.codec.transcode import protobuf_of
from btreecache.element import Element
from btreecache.encoding import json_list
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.media import MediaType
from btreecache.encoding.values import Values
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN
from tests.encoding.test_refusals import FORMS

OBJECTS, CONVERTED, BYTES = 300, 40, 50_000

#: Two chunks ahead, one being made of parts, one object being converted: with room to spare.
PEAK_BYTES_MAX = 1_500_000


def object_of(size: int) -> bytes:
    text = {"a": "x" * 70, "kind of text": "y\n" * 100}
    annotations = {f"n{i}": json.dumps(text) for i in range(size // 380)}
    metadata = {"name": "a", "namespace": "b", "annotations": annotations}
    whole = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}
    return json.dumps(whole, separators=(",", ":")).encode()


@pytest.mark.parametrize("as_protobuf", [False, True], ids=["json", "protobuf"])
@pytest.mark.parametrize("media", FORMS, ids=str)
def test_memory(media: MediaType, as_protobuf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = BUILT_IN.get("", "v1", "configmaps")
    assert resource is not None
    text = object_of(BYTES)
    one = Element(b"x", protobuf_of(text) if as_protobuf else text, 1, 1, 1)
    is_stored = (media.format, media.as_, media.pretty) == (
        "protobuf" if as_protobuf else "json", "", False,
    )  # fmt: skip
    elements = [one] * (OBJECTS if is_stored else CONVERTED)
    monkeypatch.setattr(json_list, "LOOKED_OVER_MAX", 10)
    values = Values(0)
    form = form_of(resource, "v1", media, values, typed=True)
    answers = Answers(form, media, lambda: 0.0)
    for _ in answers.page(elements[:1], PageMeta("1")):
        pass  # what is compiled once
    tracemalloc.start()
    try:
        sent = sum(map(len, answers.page(elements, PageMeta("1"))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent > len(elements) * (1_000 if media.as_ == "Table" else BYTES // 2)
    assert peak < PEAK_BYTES_MAX, f"{peak / 1e6:.1f} MB for {sent / 1e6:.1f} MB"

"""Lists in JSON and Protobuf: golden values, the cases of the conformance list, random lists.

Of the conformance list of upstream's encoders (KEP-5116) these don't apply, because what a server
over stored bytes lists is always a list with kind, apiVersion, metadata and items of one resource,
whose objects were encoded by whoever stored them:

- duplicated tags, MarshalJSON on the list or on items, a list with a further field, an object that
  is no collection: properties of Go types; there are none here, and no second encoder to fall back
  to (an object by itself goes out as it is stored)
- UnstructuredList with a nil object, with `items` in its object (".Items wins"), just kind, just
  apiVersion: the list around the items is made here, whole
- items nil (`null`): the API layer makes it empty before it is encoded, and so is ours
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from btreecache.codec import Kubernetes
from btreecache.codec.transcode import protobuf_of
from btreecache.element import Element
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.body import CHUNK_BYTES
from btreecache.encoding.form import Form
from btreecache.encoding.json_list import json_list
from btreecache.encoding.media import negotiate, offer
from btreecache.encoding.protobuf_list import protobuf_list
from btreecache.encoding.values import Values
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN, Resource, parse_resource
from tests.codec.objects import recorded
from tests.encoding.check import check, whole

CODEC = Kubernetes()
CARPS = parse_resource("g.io/v1/carps:Carp:namespaced")
PODS = BUILT_IN.get("", "v1", "pods")
assert PODS is not None

#: Objects as a server stores them, by the case of the conformance list that they are.
CASES = {
    "floats": '"spec":{"Int":1,"Float32":1,"Float64":1.1}',
    "numbers as written": '"spec":{"a":1.0,"b":-0,"c":1e400,"d":12345678901234567890123}',
    "invalid UTF-8 was replaced": '"spec":"\\ufffd"',
    "nil slice omitted": '"spec":{}',
    "nil slice and map kept": '"spec":{"slice":null,"map":null}',
    "empty slice and map": '"spec":{"slice":[],"map":{}}',
    "raw bytes": '"spec":{"bytes":"AQID","array":[1,2,3]}',
    "escapes": '"spec":"\\u003c\\u2028\\u00e9\\/"',
    "names that look like the list's": '"items":[{"kind":"Carp"}],"metadata2":{}',
}


def listed(
    resource: Resource, values: list[bytes], meta: PageMeta, *, typed: bool
) -> tuple[bytes, list[Element]]:
    elements = [
        CODEC.decode(Element(b"/registry/x/%d" % i, value, 7, 1, 1))
        for i, value in enumerate(values)
    ]
    assert [one.problem for one in elements] == [None] * len(values)
    form = Form(resource, "v1", typed, Values())
    return whole(json_list(form, elements, meta)), elements


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_items_are_as_they_are_stored(case: str, typed: bool) -> None:
    text = '{"kind":"Carp","apiVersion":"g.io/v1","metadata":{"name":"a"},' + CASES[case] + "}"
    got, elements = listed(CARPS, [text.encode()], PageMeta("9"), typed=typed)
    item = elements[0].value.decode()
    if typed:
        item = "{" + item.removeprefix('{"kind":"Carp","apiVersion":"g.io/v1",')
        assert got.decode() == (
            '{"kind":"CarpList","apiVersion":"g.io/v1","metadata":{"resourceVersion":"9"},'
            f'"items":[{item}]}}\n'
        )
    else:
        assert got.decode() == (
            f'{{"apiVersion":"g.io/v1","items":[{item}],"kind":"CarpList",'
            '"metadata":{"continue":"","resourceVersion":"9"}}\n'
        )


@pytest.mark.parametrize(
    ("number", "meta", "typed", "custom"),
    [
        (0, PageMeta("2345"), '"metadata":{"resourceVersion":"2345"},"items":[]}\n',
         '"items":[],"kind":"CarpList","metadata":{"continue":"","resourceVersion":"2345"}}\n'),
        (1, PageMeta("2345", "abc", 1),
         '"metadata":{"resourceVersion":"2345","continue":"abc","remainingItemCount":1},'
         '"items":[{"metadata":{"name":"0","resourceVersion":"7"}}]}\n',
         '"items":[{"kind":"Carp","apiVersion":"g.io/v1",'
         '"metadata":{"name":"0","resourceVersion":"7"}}],"kind":"CarpList",'
         '"metadata":{"continue":"abc","remainingItemCount":1,"resourceVersion":"2345"}}\n'),
        (2, PageMeta("2345"),
         '"metadata":{"resourceVersion":"2345"},"items":['
         '{"metadata":{"name":"0","resourceVersion":"7"}},'
         '{"metadata":{"name":"1","resourceVersion":"7"}}]}\n',
         '"items":[{"kind":"Carp","apiVersion":"g.io/v1",'
         '"metadata":{"name":"0","resourceVersion":"7"}},{"kind":"Carp","apiVersion":"g.io/v1",'
         '"metadata":{"name":"1","resourceVersion":"7"}}],"kind":"CarpList",'
         '"metadata":{"continue":"","resourceVersion":"2345"}}\n'),
    ],
)  # fmt: skip
def test_the_layout_of_lists(number: int, meta: PageMeta, typed: str, custom: str) -> None:
    values = [
        b'{"kind":"Carp","apiVersion":"g.io/v1","metadata":{"name":"%d"}}' % i
        for i in range(number)
    ]
    got, _ = listed(CARPS, values, meta, typed=True)
    assert got.decode() == '{"kind":"CarpList","apiVersion":"g.io/v1",' + typed
    got, _ = listed(CARPS, values, meta, typed=False)
    assert got.decode() == '{"apiVersion":"g.io/v1",' + custom


@pytest.mark.parametrize(
    ("kind", "version", "meta", "items", "golden"),
    [
        ("", "", PageMeta(""), [], "azhzAAoECgASABIICgYKABIAGgAaACIA"),
        ("List", "", PageMeta(""), [], "azhzAAoICgASBExpc3QSCAoGCgASABoAGgAiAA=="),
        ("", "v1", PageMeta(""), [], "azhzAAoGCgJ2MRIAEggKBgoAEgAaABoAIgA="),
        ("List", "v1", PageMeta("2345"), [], "azhzAAoKCgJ2MRIETGlzdBIMCgoKABIEMjM0NRoAGgAiAA=="),
        ("List", "v1", PageMeta("2345", "abc", 1),
         ["ChoKA3BvZBIAGgdkZWZhdWx0IgAqADIAOABCABIXGgBCAEoAUgBYAGAAaACCAQCKAQCaAQAaCgoAGgAiACoAMgA="],
         "azhzAAoKCgJ2MRIETGlzdBJUCg8KABIEMjM0NRoDYWJjIAESQQoaCgNwb2QSABoHZGVmYXVsdCIAKgAyADgAQgAS"
         "FxoAQgBKAFIAWABgAGgAggEAigEAmgEAGgoKABoAIgAqADIAGgAiAA=="),
    ],
)  # fmt: skip
def test_golden_protobuf(
    kind: str, version: str, meta: PageMeta, items: list[str], golden: str
) -> None:
    resource = Resource("", "carps", "Carp", True, ("v1",), "carps")
    form = Form(resource, version, True, Values())
    form.list_kind = kind
    messages = [base64.b64decode(one) for one in items]
    elements = [
        Element(b"x", form.protobuf_head + b"\x12%c%b\x1a\0\x22\0" % (len(one), one), 1, 1, 1)
        for one in messages
    ]
    body = protobuf_list(form, elements, meta)
    assert base64.b64encode(whole(body)).decode() == golden


def test_what_a_real_server_answered() -> None:
    """Byte for byte, from what it had stored: both pods, in the forms that were recorded."""
    assert PODS is not None
    pods = [
        CODEC.decode(one.element) for one in recorded() if one.key.startswith(b"/registry/pods/")
    ]
    answers = Path(__file__).with_name("pod-answers.jsonl").read_text().splitlines()
    seen = []
    for line in answers:
        one = json.loads(line)
        if "?" in one["path"]:
            continue
        body = one.get("body")
        expected = body.encode() if body else base64.b64decode(one["body_base64"])
        media = negotiate(one["accept"], offer(typed=True, watch=False))
        form = form_of(PODS, "v1", media, Values(), typed=True)
        assert whole(Answers(form, media, lambda: 0.0).page(pods, PageMeta("257"))) == expected
        seen.append((media.format, media.as_))
    assert seen == [("json", ""), ("protobuf", ""), ("json", "PartialObjectMetadataList")]


@pytest.mark.parametrize("part", range(6))
def test_random_lists(part: int) -> None:
    for seed in range(part * 50, part * 50 + 50):
        check(seed)


def test_an_object_is_sized_and_converted_once() -> None:
    """Upstream's TestCallsToSize: of a protobuf list; and of lists in the other form."""
    calls: list[bytes] = []
    values = Values()
    values.codec = values.codec._replace(
        protobuf_of=lambda value: calls.append(value) or protobuf_of(value)  # type: ignore[func-returns-value]
    )
    assert PODS is not None
    form = Form(PODS, "v1", True, values)
    texts = [b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"%d"}}' % i for i in range(5)]
    elements = [Element(b"x%d" % i, text, 1, 1, 1) for i, text in enumerate(texts)]
    first = whole(protobuf_list(form, elements, PageMeta("1")))
    assert calls == texts
    assert whole(protobuf_list(form, elements, PageMeta("1"))) == first
    assert calls == texts


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [[10] * 3_000, [CHUNK_BYTES] * 5, [CHUNK_BYTES - 40] * 3, [1_000_000, 5, 5], [5, 2_000_000],
     [300] * 500 + [700_000] * 3 + [300] * 500],
)  # fmt: skip
def test_chunks(sizes: list[int], typed: bool) -> None:
    """Small objects and large ones, and both: chunks keep their bounds (`whole` looks)."""
    values = [
        b'{"kind":"Carp","apiVersion":"g.io/v1","metadata":{"name":"%d"},"x":"%b"}'
        % (i, b"x" * size)
        for i, size in enumerate(sizes)
    ]
    got, _ = listed(CARPS, values, PageMeta("9"), typed=typed)
    items = json.loads(got)["items"]
    assert [(int(one["metadata"]["name"]), len(one["x"])) for one in items] == [*enumerate(sizes)]


def test_lengths_of_lists_that_were_written_in_another_way() -> None:
    """Names sorted, in another order, with white space around: several chunks, so the length that
    is said is the one that was counted ahead."""
    forms = [
        b'{"apiVersion":"g.io/v1","kind":"Carp","metadata":{"name":"%d"},"x":"%b"}',
        b'{"metadata":{"name":"%d"},"kind":"Carp","apiVersion":"g.io/v1","x":"%b"}',
        b' \n{"kind":"Carp", "apiVersion":"g.io/v1","metadata":{"name":"%d"},"x":"%b"}\r\n\t ',
    ]
    values = [forms[i % 3] % (i, b"x" * 20_000) for i in range(30)]
    for typed in (True, False):
        # Not decoded: the codec takes white space off the ends.
        elements = [Element(b"%d" % i, value, 7, 1, 1) for i, value in enumerate(values)]
        body = json_list(Form(CARPS, "v1", typed, Values()), elements, PageMeta("9"))
        assert body.length is not None
        items = json.loads(whole(body))["items"]
        assert [one["metadata"]["name"] for one in items] == [str(i) for i in range(30)]
        assert [one.get("kind") for one in items[:3]] == [None if typed else "Carp", "Carp", "Carp"]

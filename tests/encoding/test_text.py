"""Pretty JSON and YAML: the same values, as people read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.codec.base import Unreadable
from btreecache.element import Element
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.media import MediaType
from btreecache.encoding.text import pretty, pretty_chunks, yaml
from btreecache.encoding.values import Values
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN
from tests.codec.objects import recorded

#: Strings that some reader of YAML takes for something else.
ODD = [
    "", " ", "y", "N", "yes", "No", "on", "OFF", "true", "False", "null", "NULL", "~", "=", "<<",
    "-", "--", "---", "...", ".", "..", "1", "-1", "+1", "1.5", "1e3", "1.0e+3", ".5", "5.", "0x1F",
    "0o17", "017", "0b1", "1_000", "1,000", "190:20:30", "190:20", ".inf", "-.Inf", ".NaN", ".nan",
    "2001-12-14", "2001-12-14T21:59:43.10-05:00", "2001-12-14 21:59:43.10 -5", "12e03", "-2E+05",
    "a: b", "a:", ": a", "a #b", "#a", "a#b", "- a", "-a", "?", "? a", "!a", "&a", "*a", "@a", "`a",
    "%a", "|", ">", "'a'", '"a"', "a'b", "{", "}", "[", "]", ",", "a,b", "a b", " a", "a ", "a\tb",
    "\t", "\n", "\n\n", "a\n", "a\n\n", "a\nb", "a\nb\n", " a\nb", "\na", "a\n b\n", "a\n\nb",
    "a\n \nb",
    "a\r\nb", "a\rb", "\x00", "\x07", "\x1b", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe",
    "é", "\U0001f600", "a\\b", "10.1.1.1", "1500m", "256Mi", "3h", "v1", "f:metadata",
    "k:{\"a\":1}",
    "a" * 2_000, "a b " * 100, "Infinity", "NaN", "e3", "_", "1__", "0", "00", "0x", "+", "$", "%",
    "12:30:45", "1:2", "::", "a::b", "http://x/y?z=1&w=2", "a:b", "sha256:0f", "1e", "e", "1.e5",
]  # fmt: skip

TEXTS = st.text(max_size=12) | st.sampled_from(ODD) | st.text("ab \n:#-'\"\t", max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXTS
DOCUMENTS = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(
        errors="surrogatepass"
    )


def indented(document: Any) -> bytes:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return text.encode(errors="surrogatepass")


@given(DOCUMENTS, st.lists(st.integers(1, 40), max_size=8))
def test_pretty_is_as_the_standard_library_indents(document: Any, cuts: list[int]) -> None:
    text = compact(document)
    assert pretty(text) == indented(document)
    assert pretty(indented(document)) == indented(document)
    chunks, at = [], 0
    for size in cuts:
        chunks.append(text[at : at + size])
        at += size
    chunks.append(text[at:])
    assert b"".join(pretty_chunks(chunks)) == indented(document)


def test_pretty_changes_white_space_only() -> None:
    text = b'{"b":1.0,"a":[{},[],"\\u00e9 \\"{,:"],"b":1e400}'
    assert pretty(text) == (
        b'{\n  "b": 1.0,\n  "a": [\n    {},\n    [],\n    "\\u00e9 \\"{,:"\n  ],\n  "b": 1e400\n}'
    )
    assert pretty(b"") == b""
    for broken in (b'"abc', b"}}]", b'{"a":'):
        pretty(broken)  # whatever it is, it is not an error here


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_pretty_wherever_chunks_end(size: int) -> None:
    text = json_bytes({"a\\": ['x"\\', "<é>", 12, None], "b": {}, "c": [{"d": []}]})
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert b"".join(pretty_chunks(chunks)) == pretty(text)


def load(text: bytes) -> Any:
    return pytest.importorskip("yaml").safe_load(text)


@given(DOCUMENTS)
def test_yaml_is_read_as_the_same_value(document: Any) -> None:
    got = yaml(compact(document))
    assert load(got) == replaced(document)
    assert got.endswith(b"\n")


def replaced(document: Any) -> Any:
    """Halves of surrogate pairs as Go has them."""
    return json.loads(json.dumps(document))


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_yaml_of_odd_strings(text: str) -> None:
    for document in (text, [text], {text: text}, {"a": {text: [text, {"b": text}]}}):
        assert load(yaml(compact(document))) == document


@pytest.mark.parametrize(
    "text",
    ["y", "N", "Yes", "on", "012", "1e3", "0o14", "0b11", "1:30", "2001-01-01", "1_0", ".5",
     "-.inf", "~", "NULL", "+1", "0x1f", "=", "<<"],
)  # fmt: skip
def test_what_any_reader_could_mistake_is_quoted(text: str) -> None:
    """YAML 1.1 as Go reads it knows more of these than PyYAML."""
    assert yaml(compact(text)) == f'"{text}"\n'.encode()


@pytest.mark.parametrize("text", ["Pod", "v1", "apps/v1", "256Mi", "f:metadata", "a b", "kube-dns"])
def test_what_nobody_could_is_plain(text: str) -> None:
    assert yaml(compact(text)) == f"{text}\n".encode()


def test_yaml_as_people_know_it() -> None:
    document = {
        "kind": "Pod",
        "apiVersion": "v1",
        "spec": {"b": [1, {"d": None, "c": "x"}, [2, []]], "a": {}, "t": "l1\nl2\n", "m": -0.5},
    }
    assert yaml(compact(document)).decode() == (
        "apiVersion: v1\nkind: Pod\nspec:\n  a: {}\n  b:\n  - 1\n  - c: x\n    d: null\n"
        "  - - 2\n    - []\n  m: -0.5\n  t: |\n    l1\n    l2\n"
    )


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("1", "1"), ("-0", "-0"), ("1.0", "1.0"), ("1e3", "1.0e+3"), ("1E-3", "1.0e-3"),
        ("1.5e+300", "1.5e+300"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)  # fmt: skip
def test_numbers_stay_as_they_are(number: str, written: str) -> None:
    assert yaml(number.encode()) == f"{written}\n".encode()
    assert float(load(yaml(number.encode()))) == float(number)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":}'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable, match="YAML"):
        yaml(text)


def test_half_a_pair_is_no_character() -> None:
    assert load(yaml(b'"\\ud800x"')) == "\ufffdx"


def test_every_recorded_object() -> None:
    for one in recorded():
        assert load(yaml(one.json)) == json.loads(one.json)
        assert pretty(one.json) == indented(json.loads(one.json)).replace(b"<", b"\\u003c").replace(
            b">", b"\\u003e"
        ).replace(b"&", b"\\u0026")


@pytest.mark.parametrize("number", [0, 1, 3])
def test_lists(number: int) -> None:
    resource = BUILT_IN.get("", "v1", "pods")
    assert resource is not None
    text = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"y"},"spec":{"a":[{"b":1}]}}'
    elements = [Element(b"x", text, 1, 1, 1)] * number
    for meta in (PageMeta("9"), PageMeta("9", "1e3", 4)):
        read = []
        for media in (MediaType(), MediaType(pretty=True), MediaType("yaml")):
            form = form_of(resource, "v1", media, Values(), typed=True)
            body = b"".join(Answers(form, media, lambda: 0.0).page(elements, meta))
            read.append(load(body) if media.format == "yaml" else json.loads(body))
            if media.pretty:
                assert body == indented(read[0])
        assert read[0] == read[1] == read[2]

"""Continue tokens: the exact format, the decode table, and any input at all."""

from __future__ import annotations

import base64
import json
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btreecache.continue_token import (
    CONTINUE_EXPIRED,
    EXPIRED,
    INCONSISTENT_CONTINUE,
    LATEST,
    TOKEN_CHARS_MAX,
    decode,
    encode,
    expired,
)
from btreecache.errors import BadRequest

PREFIX = b"/test/"
GENERIC = "continue key is not valid"


def token(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def of(version: str, revision: int, start: str) -> str:
    return token(json.dumps({"v": version, "rv": revision, "start": start}))


def refusal(text: str) -> str:
    with pytest.raises(BadRequest) as caught:
        decode(text, PREFIX)
    return str(caught.value).removeprefix("invalid continue token: ")


def test_the_known_vector() -> None:
    known = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OSwic3RhcnQiOiJkZWZhdWx0L2Zvb1x1MDAwMCJ9"
    assert encode(PREFIX + b"default/foo\0", PREFIX, 9) == known
    assert decode(known, PREFIX) == (PREFIX + b"default/foo\0", 9)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("<>&", "\\u003c\\u003e\\u0026"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ('"\\/', '\\"\\\\/'),
        ("\0\x1f\b\f\n\r\t\x7f", "\\u0000\\u001f\\b\\f\\n\\r\\t\x7f"),
        ("é世😀", "é世😀"),
        ("", "/"),
    ],
)
def test_escapes_are_those_of_go(key: str, written: str) -> None:
    text = encode(PREFIX + key.encode(), PREFIX, -1)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    assert raw == f'{{"v":"meta.k8s.io/v1","rv":-1,"start":"{written}"}}'


@pytest.mark.parametrize(
    ("text", "start", "revision"),
    [
        (of("meta.k8s.io/v1", 1, "key"), b"/test/key", 1),
        (of("meta.k8s.io/v1", 1, "/key"), b"/test/key", 1),
        (of("meta.k8s.io/v1", 1, "/"), b"/test/", 1),
        (of("meta.k8s.io/v1", -1, "key"), b"/test/key", -1),
        (of("meta.k8s.io/v1", -(2**63), "a..b/.c"), b"/test/a..b/.c", -(2**63)),
        (of("meta.k8s.io/v1", 2**63 - 1, "k"), b"/test/k", 2**63 - 1),
        # As Go reads JSON into a struct.
        (token('{"V":"meta.k8s.io/v1","RV":1,"Start":"k","x":[{}]}'), b"/test/k", 1),
        (token('{"v":"","v":"meta.k8s.io/v1","rv":1,"start":"k","rv":null}'), b"/test/k", 1),
        (token(' {"v":"meta.k8s.io/v1","rv":1,"start":"\\ud800k"} '), "/test/\ufffdk".encode(), 1),
        (token(b'{"v":"meta.k8s.io/v1","rv":1,"start":"\xffk"}'), "/test/\ufffdk".encode(), 1),
        (token('{"v":"meta.k8s.io/v1","rv":1,"start":"\\ud83d\\ude00"}'), "/test/😀".encode(), 1),
    ],
)
def test_what_is_taken(text: str, start: bytes, revision: int) -> None:
    assert decode(text, PREFIX) == (start, revision)
    assert decode(text[:5] + "\r\n" + text[5:], PREFIX) == (start, revision)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("?", f"{GENERIC}: illegal base64 data at input byte 0"),
        ("abc=", f"{GENERIC}: illegal base64 data at input byte 3"),
        ("ab+c", f"{GENERIC}: illegal base64 data at input byte 2"),
        ("abcde", f"{GENERIC}: illegal base64 data at input byte 4"),
        ("é", f"{GENERIC}: illegal base64 data at input byte 0"),
        (of("", 1, "key"), f"{GENERIC}: server does not recognize this encoded version "),
        (of("v1", 1, "key"), f"{GENERIC}: server does not recognize this encoded version v1"),
        (token("null"), f"{GENERIC}: server does not recognize this encoded version "),
        (token("{}"), f"{GENERIC}: server does not recognize this encoded version "),
        (
            of("meta.k8s.io/v1", 0, "key"),
            f"{GENERIC}: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
        (
            of("meta.k8s.io/v1", 1, ""),
            f"{GENERIC}: encoded start key empty (version meta.k8s.io/v1)",
        ),
        *(
            (of("meta.k8s.io/v1", 1, path), f"{GENERIC}: {path}")
            for path in ("../key", "./key", "./../key", "key/../..", "a//b", "a/", "//", "/..", ".")
        ),
    ],
)
def test_what_is_refused_and_how(text: str, said: str) -> None:
    assert refusal(text) == said


@pytest.mark.parametrize(
    "document",
    [
        "", "{", "[]", "1", '"x"', "{}x", "NaN", "[" * 20_000, '{"v":1}', '{"v":[],"rv":1}',
        '{"v":"meta.k8s.io/v1","rv":1.0,"start":"k"}', '{"v":"meta.k8s.io/v1","rv":1e2}',
        '{"v":"meta.k8s.io/v1","rv":"1","start":"k"}', '{"v":"meta.k8s.io/v1","rv":true}',
        '{"v":"meta.k8s.io/v1","rv":9223372036854775808,"start":"k"}', '{"rv":' + "9" * 5000 + "}",
        '{"v":"meta.k8s.io/v1","rv":1,"start":{"a":1}}', '{"v":"meta.k8s.io/v1","rv":Infinity}',
        '\ufeff{"v":"meta.k8s.io/v1","rv":1,"start":"k"}', '{"v":"meta.k8s.io/v1","start":"\x01"}',
    ],
    ids=range(20),
)  # fmt: skip
def test_what_is_no_token_at_all(document: str) -> None:
    assert refusal(token(document)).startswith(f"{GENERIC}: ")


def test_size_is_bounded_both_ways() -> None:
    assert "longer than" in refusal("a" * (TOKEN_CHARS_MAX + 1))
    with pytest.raises(BadRequest, match="too long"):
        encode(PREFIX + b"k" * TOKEN_CHARS_MAX, PREFIX, 1)
    long = PREFIX + b"k" * 40_000
    assert decode(encode(long, PREFIX, 1), PREFIX) == (long, 1)


def test_what_cannot_be_said_is_not_written() -> None:
    with pytest.raises(BadRequest, match="the key and key prefix do not match"):
        encode(b"/other/k", PREFIX, 1)
    with pytest.raises(BadRequest, match="not UTF-8"):
        encode(PREFIX + b"\xff", PREFIX, 1)
    with pytest.raises(AssertionError):
        encode(PREFIX + b"k", PREFIX, 0)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 2**63 - 1))
@example("/", 1)
@example("/0", 1)
@example("", 1)
def test_a_written_token_is_read_back_or_its_path_is_not_clean(key: str, revision: int) -> None:
    if key.startswith("/"):
        # Read back it would be another key: found by a seed in which hypothesis drew one.
        with pytest.raises(BadRequest, match="begins with an empty name"):
            encode(PREFIX + key.encode(), PREFIX, revision)
        return
    text = encode(PREFIX + key.encode(), PREFIX, revision)
    path = "/" + key
    # posixpath keeps two leading slashes, Go's path.Clean doesn't.
    clean = not path.startswith("//") and posixpath.normpath(path) == path
    if clean:
        assert decode(text, PREFIX) == (PREFIX + key.encode(), revision)
    else:
        assert refusal(text).startswith(GENERIC)


@given(st.one_of(st.text(), st.binary().map(token), st.text().map(lambda text: token(f'"{text}"'))))
def test_any_input_is_a_position_below_the_prefix_or_a_bad_request(text: str) -> None:
    try:
        start, revision = decode(text, PREFIX)
    except BadRequest:
        return
    assert start.startswith(PREFIX)
    assert revision != 0


DOCUMENTS = st.dictionaries(
    st.sampled_from(["v", "rv", "start", "V", "x"]),
    st.one_of(
        st.just("meta.k8s.io/v1"), st.integers(), st.text(), st.none(), st.booleans(), st.floats(),
        st.lists(st.none()),
    ),
)  # fmt: skip


@given(DOCUMENTS)
def test_any_document_is_a_position_below_the_prefix_or_a_bad_request(document: object) -> None:
    text = token(json.dumps(document))
    try:
        start, revision = decode(text, PREFIX)
    except BadRequest:
        assert refusal(text).startswith(GENERIC)
        return
    assert start.startswith(PREFIX)
    assert b"/../" not in start + b"/"
    assert -(2**63) <= revision < 2**63


def test_the_410_of_a_continued_list_says_how_to_go_on() -> None:
    start = PREFIX + b"ns/a\0"
    error = expired(5, 9, start, PREFIX)
    assert str(error) == INCONSISTENT_CONTINUE
    assert decode(error.continue_token, PREFIX) == (start, LATEST)
    plain = expired(5, 9, None, PREFIX)
    assert (str(plain), plain.continue_token) == (EXPIRED, "")
    unspeakable = expired(5, 9, PREFIX + b"\xff", PREFIX)
    assert (str(unspeakable), unspeakable.continue_token) == (CONTINUE_EXPIRED, "")
    assert {(error.revision, error.oldest), (plain.revision, plain.oldest)} == {(5, 9)}

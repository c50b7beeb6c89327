"""Errors as Kubernetes Status objects: the table of docs/reads.md, and each shape to the letter."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from btreecache import errors
from btreecache.errors import (
    BadRequest,
    BtreecacheError,
    Compacted,
    Conflict,
    FeedFault,
    FieldError,
    FutureRevision,
    Invalid,
    MethodNotAllowed,
    MissingExtra,
    NotFound,
    NotReady,
    SourceError,
    Unavailable,
    Unsupported,
    quoted,
    retry_after_s,
    status,
)

PAGE = (Path(__file__).parents[1] / "docs/reads.md").read_text()
HEADER = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":'

SHAPES: list[tuple[BtreecacheError, str]] = [
    (BadRequest("no"), '"no","reason":"BadRequest","code":400}'),
    (
        NotFound("pods", "a"),
        '"pods \\"a\\" not found","reason":"NotFound","details":'
        '{"name":"a","kind":"pods"},"code":404}',
    ),
    (
        NotFound("deployments", "a", "apps"),
        '"deployments.apps \\"a\\" not found","reason":"NotFound","details":'
        '{"name":"a","group":"apps","kind":"deployments"},"code":404}',
    ),
    (MethodNotAllowed("read-only"), '"read-only","reason":"MethodNotAllowed","code":405}'),
    (
        Conflict(b"k", 1, 2),
        '"key b\'k\': expected mod_revision 1, found 2","reason":"Conflict","code":409}',
    ),
    (
        Compacted(5, 9),
        '"too old resource version: 5 (9)","reason":"Expired","code":410}',
    ),
    (
        NotReady("filling", downtime_s=30.0),
        '"filling","reason":"TooManyRequests","details":{"retryAfterSeconds":6},"code":429}',
    ),
    (Unavailable("gone"), '"gone","reason":"ServiceUnavailable","code":503}'),
    (
        FutureRevision(7, 5),
        '"Timeout: Too large resource version: 7, current: 5","reason":"Timeout","details":'
        '{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],'
        '"retryAfterSeconds":1},"code":504}',
    ),
    (
        FutureRevision(7, 5, retry_after_s=0),
        '"Timeout: Too large resource version: 7, current: 5","reason":"Timeout","details":'
        '{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}]},'
        '"code":504}',
    ),
    (
        SourceError("denied"),
        '"Internal error occurred: denied","reason":"InternalError","details":'
        '{"causes":[{"message":"denied"}]},"code":500}',
    ),
    (Unsupported("too old"), '"too old","reason":"InternalError","code":500}'),
    (
        Invalid([FieldError.forbidden("f", "never")]),
        '"ListOptions.meta.k8s.io \\"\\" is invalid: f: Forbidden: never","reason":"Invalid",'
        '"details":{"group":"meta.k8s.io","kind":"ListOptions","causes":[{"reason":"FieldValueForbidden",'
        '"message":"Forbidden: never","field":"f"}]},"code":422}',
    ),
]


@pytest.mark.parametrize(("error", "rest"), SHAPES, ids=[type(e).__name__ for e, _ in SHAPES])
def test_the_status_is_upstreams_byte_for_byte(error: BtreecacheError, rest: str) -> None:
    assert json.dumps(status(error), separators=(",", ":")) == HEADER + rest


def test_the_page_tells_every_error_that_a_read_can_meet() -> None:
    block = PAGE.split("| status | reason | error | when |\n", 1)[1].split("\n\n", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[1:]
    ]
    for code, reason, name, _ in rows:
        error = getattr(errors, name)
        assert (str(error.status), error.reason) == (code, reason)
    named = {row[2] for row in rows}
    ours = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BtreecacheError)
    }
    # Not a read's: the root, what a job runs into, what an installation lacks.
    assert ours - named == {"BtreecacheError", "FeedFault", "MissingExtra"}


def test_a_continued_list_that_expired_carries_a_token() -> None:
    answer = status(Compacted(5, 9, message="too old", continue_token="abc"))
    assert answer["metadata"] == {"continue": "abc"}
    assert answer["message"] == "too old"


def test_whatever_else_goes_wrong_is_an_internal_error_that_tells_nothing() -> None:
    answer = status(KeyError("secret"))
    assert (answer["code"], answer["reason"]) == (500, "InternalError")
    assert "secret" not in json.dumps(answer)
    for error in (FeedFault("gap", 5, 4, b"k", "why"), MissingExtra("etcd", "grpc")):
        assert str(status(error)["message"]) == f"Internal error occurred: {error}"


def test_several_field_errors_are_told_in_order_and_once() -> None:
    first, second = FieldError.forbidden("a", "x"), FieldError.unsupported("b", "v", ["1", ""])
    body = 'b: Unsupported value: "v": supported values: "1", ""'
    error = Invalid([first, second, first], kind="K", group="")
    assert str(error) == f'K "" is invalid: [a: Forbidden: x, {body}]'
    assert len(error.errors) == 3
    assert str(Invalid([first, first])).endswith("is invalid: a: Forbidden: x")


@pytest.mark.parametrize(
    ("downtime_s", "seconds"),
    [(-5, 1), (0, 1), (10, 1), (14, 2), (20, 3), (30, 6), (40, 11), (56.6, 29), (57, 30),
     (1e9, 30), (math.inf, 30)],
)  # fmt: skip
def test_retry_after_grows_with_the_downtime(downtime_s: float, seconds: int) -> None:
    assert retry_after_s(downtime_s) == seconds


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('say "x"\\', '"say \\"x\\"\\\\"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1f\x7f", '"\\x00\\x1f\\x7f"'),
        ("é世😀", '"é世😀"'),
        ("\u00a0\u200b\u2028", '"\\u00a0\\u200b\\u2028"'),
        ("\U000e0001", '"\\U000e0001"'),
        (b"\xff".decode(errors="surrogateescape"), '"\\xff"'),
    ],
)
def test_quoting_is_that_of_go(text: str, literal: str) -> None:
    assert quoted(text) == literal


def test_hostile_text_is_quoted_as_before_and_at_once() -> None:
    """Found by the fuzzer: a megabyte of odd characters took 85 MB and more than a second."""
    every = "".join(map(chr, [*range(0x250), 0x2028, 0xD800, 0xDCFF, 0xFEFF, 0x1F600, 0x10FFFF]))
    one_by_one = "".join(quoted(char)[1:-1] for char in every)
    assert quoted(every) == f'"{one_by_one}"'
    odd = quoted("\x00" * 1_000_000)
    assert len(odd) == 4_000_002

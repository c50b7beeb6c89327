"""Options: query parameters as the API server parses them; what can't be combined, all of it.

The oracle of validation is the table of rules below, one row a rule in the order in which an API
server says them; every combination is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from urllib.parse import parse_qs, parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.errors import BadRequest, Invalid, status
from btreecache.features import Features
from btreecache.options import (
    GetOptions,
    ListOptions,
    WatchOptions,
    parse_resource_version,
    wants_watch,
)

MATCH = "resourceVersionMatch"
ON, OFF = Features(), Features(watch_list=False)

#: Text and when it is said, by version, match, continue, sendInitialEvents and the gate.
Rule = tuple[str, Callable[[str, str, str, bool | None, bool], bool]]
LIST_RULES: list[Rule] = [
    (
        f"{MATCH}: Forbidden: {MATCH} is forbidden unless resourceVersion is provided",
        lambda rv, match, token, events, gate: bool(match) and not rv,
    ),
    (
        f"{MATCH}: Forbidden: {MATCH} is forbidden when continue is provided",
        lambda rv, match, token, events, gate: bool(match) and bool(token),
    ),
    (
        f'{MATCH}: Unsupported value: "foo": supported values: "Exact", "NotOlderThan", ""',
        lambda rv, match, token, events, gate: match == "foo",
    ),
    (
        f'{MATCH}: Forbidden: {MATCH} "exact" is forbidden for resourceVersion "0"',
        lambda rv, match, token, events, gate: match == "Exact" and rv in ("0", "00"),
    ),
    (
        "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        lambda rv, match, token, events, gate: events is not None,
    ),
]
WATCH_RULES: list[Rule] = [
    (
        f"{MATCH}: Forbidden: sendInitialEvents requires setting {MATCH} to NotOlderThan",
        lambda rv, match, token, events, gate: events is not None and match != "NotOlderThan",
    ),
    (
        "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the"
        " WatchList feature gate is enabled",
        lambda rv, match, token, events, gate: events is not None and not gate,
    ),
    (
        f"{MATCH}: Forbidden: {MATCH} is forbidden for watch unless sendInitialEvents is provided",
        lambda rv, match, token, events, gate: bool(match) and events is None,
    ),
    *(
        (
            f'{MATCH}: Unsupported value: "{bad}": supported values: "NotOlderThan"',
            lambda rv, match, token, events, gate, bad=bad: match == bad,
        )
        for bad in ("Exact", "foo")
    ),
    (
        f"{MATCH}: Forbidden: {MATCH} is forbidden when continue is provided",
        lambda rv, match, token, events, gate: bool(match) and bool(token),
    ),
]
COMBINATIONS = list(
    product(
        ("", "0", "00", "7", "x"),
        ("", "Exact", "NotOlderThan", "foo"),
        ("", "token"),
        (None, True, False),
        (True, False),
    )
)


@pytest.mark.parametrize("rules", [LIST_RULES, WATCH_RULES], ids=["list", "watch"])
def test_every_combination_is_refused_in_upstreams_words_and_order(rules: list[Rule]) -> None:
    said = set()
    for version, match, token, events, gate in COMBINATIONS:
        expected = [text for text, holds in rules if holds(version, match, token, events, gate)]
        said.update(expected)
        if rules is LIST_RULES:
            options = ListOptions(
                resource_version=version, resource_version_match=match, continue_token=token,
                send_initial_events=events,
            )  # fmt: skip
            errors = options.errors()
            validate = options.validate
        else:
            watch = WatchOptions(
                resource_version=version, resource_version_match=match, continue_token=token,
                send_initial_events=events,
            )  # fmt: skip
            features = ON if gate else OFF
            errors = watch.errors(features)
            validate = lambda watch=watch, features=features: watch.validate(features)  # noqa: E731
        assert list(map(str, errors)) == expected
        if expected:
            with pytest.raises(Invalid) as caught:
                validate()
            assert len(caught.value.errors) == len(expected)
        else:
            validate()
    assert said == {text for text, _ in rules}, "a rule that nothing breaks"


def test_the_status_of_what_cannot_be_combined() -> None:
    options = ListOptions(resource_version_match="foo", continue_token="t")
    with pytest.raises(Invalid) as caught:
        options.validate()
    answer = status(caught.value)
    bodies = [
        f"Forbidden: {MATCH} is forbidden unless resourceVersion is provided",
        f"Forbidden: {MATCH} is forbidden when continue is provided",
        'Unsupported value: "foo": supported values: "Exact", "NotOlderThan", ""',
    ]
    joined = ", ".join(f"{MATCH}: {body}" for body in bodies)
    assert answer["message"] == f'ListOptions.meta.k8s.io "" is invalid: [{joined}]'
    assert (answer["code"], answer["reason"]) == (422, "Invalid")
    details = answer["details"]
    assert isinstance(details, dict)
    kinds = ["FieldValueForbidden", "FieldValueForbidden", "FieldValueNotSupported"]
    assert details["causes"] == [
        {"reason": kind, "message": body, "field": MATCH}
        for kind, body in zip(kinds, bodies, strict=True)
    ]


def test_get_has_the_rules_of_a_list_for_its_match() -> None:
    for version, match in product(("", "0", "7"), ("", "Exact", "NotOlderThan", "foo")):
        one = GetOptions(resource_version=version, resource_version_match=match)
        many = ListOptions(resource_version=version, resource_version_match=match)
        assert one.errors() == many.errors()
    with pytest.raises(Invalid, match=r'^GetOptions\.meta\.k8s\.io "" is invalid: '):
        GetOptions(resource_version_match="Exact").validate()
    GetOptions().validate()


def test_a_watch_is_defaulted_as_the_api_server_does() -> None:
    for version, match, token, events, gate in COMBINATIONS:
        options = WatchOptions(
            resource_version=version, resource_version_match=match, continue_token=token,
            send_initial_events=events,
        )  # fmt: skip
        after = options.defaulted(ON if gate else OFF)
        if gate and version in ("", "0") and not match and events is None:
            assert (after.send_initial_events, after.resource_version_match) == (
                True,
                "NotOlderThan",
            )
        else:
            assert after is options


# Parsing.

QUERY = (
    "resourceVersion=7&resourceVersion=8&resourceVersionMatch=Exact&limit=5&continue=abc&"
    "labelSelector=a%3Db&fieldSelector=c%3Dd&timeoutSeconds=9&Limit=3&pretty=true"
)


@pytest.mark.parametrize("parse", [parse_qsl, parse_qs])
def test_a_list_query(parse: Callable[..., object]) -> None:
    query = parse(QUERY, keep_blank_values=True)
    assert ListOptions.from_query(query) == ListOptions(  # type: ignore[arg-type]
        resource_version="7", resource_version_match="Exact", limit=5, continue_token="abc",
        label_selector="a=b", field_selector="c=d", timeout_s=9.0,
    )  # fmt: skip
    assert GetOptions.from_query(query) == GetOptions(  # type: ignore[arg-type]
        resource_version="7", resource_version_match="Exact", timeout_s=9.0
    )


def test_a_watch_query() -> None:
    query = {
        "watch": "1", "allowWatchBookmarks": "true", "sendInitialEvents": ["false", "true"],
        "resourceVersion": ["7"], "resourceVersionMatch": "NotOlderThan", "limit": "5",
        "continue": "t", "labelSelector": "a", "fieldSelector": "b", "timeoutSeconds": [],
    }  # fmt: skip
    assert wants_watch(query)
    assert WatchOptions.from_query(query) == WatchOptions(
        resource_version="7", resource_version_match="NotOlderThan", continue_token="t",
        label_selector="a", field_selector="b", allow_watch_bookmarks=True,
        send_initial_events=False,
    )  # fmt: skip
    assert WatchOptions.from_query({}) == WatchOptions()
    assert ListOptions.from_query({}) == ListOptions()
    assert ListOptions().filtered is WatchOptions().filtered is False
    assert ListOptions(label_selector="a").filtered is True
    assert WatchOptions(field_selector="a").filtered is True


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("", True), ("no", True), ("TRUE", True), (" false", True),
     ("00", True), ("false", False), ("FALSE", False), ("fAlSe", False), ("0", False)],
)  # fmt: skip
def test_a_flag_is_false_only_if_it_says_so(text: str, value: bool) -> None:
    assert wants_watch([("watch", text)]) is value
    assert ListOptions.from_query({"sendInitialEvents": text}).send_initial_events is value


def test_an_absent_flag() -> None:
    assert not wants_watch({})
    assert ListOptions.from_query({}).send_initial_events is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("007", 7), ("+5", 5), ("-5", -5), ("9223372036854775807", 2**63 - 1),
     ("-9223372036854775808", -(2**63)), ("0" * 5000 + "1", 1)],
)  # fmt: skip
def test_numbers(text: str, value: int) -> None:
    assert ListOptions.from_query({"limit": text}).limit == value
    timeout_s = WatchOptions.from_query({"timeoutSeconds": text}).timeout_s
    assert timeout_s == (None if value == 0 else float(max(value, 0)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "invalid syntax"), ("x", "invalid syntax"), ("1.5", "invalid syntax"),
     ("1_0", "invalid syntax"), (" 1", "invalid syntax"), ("\u0661", "invalid syntax"),
     ("9223372036854775808", "value out of range"), ("-" + "9" * 5000, "value out of range")],
)  # fmt: skip
def test_what_is_no_number(text: str, reason: str) -> None:
    said = f'strconv.ParseInt: parsing "{text}": {reason}'
    for parse in (ListOptions.from_query, WatchOptions.from_query):
        for name in ("limit", "timeoutSeconds"):
            with pytest.raises(BadRequest) as caught:
                parse({name: text})
            assert str(caught.value) == said


def test_of_two_bad_numbers_the_timeout_is_told() -> None:
    for parse in (ListOptions.from_query, WatchOptions.from_query):
        with pytest.raises(BadRequest, match='"b"'):
            parse({"limit": "a", "timeoutSeconds": "b"})


@pytest.mark.parametrize(
    ("text", "revision"),
    [("", 0), ("0", 0), ("00", 0), ("7", 7), ("007", 7), ("18446744073709551615", 2**64 - 1),
     ("0" * 5000 + "7", 7)],
)  # fmt: skip
def test_revisions(text: str, revision: int) -> None:
    assert parse_resource_version(text) == revision


@pytest.mark.parametrize(
    ("text", "reason"),
    [("abc", "invalid syntax"), ("-1", "invalid syntax"), ("+1", "invalid syntax"),
     ("1.0", "invalid syntax"), ("0x1", "invalid syntax"), ("7\n", "invalid syntax"),
     ("18446744073709551616", "value out of range"), ("9" * 5000, "value out of range")],
)  # fmt: skip
def test_what_is_no_revision(text: str, reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_resource_version(text)
    shown = text.replace("\n", "\\n")
    assert str(caught.value) == (
        f'invalid resource version: resourceVersion: Invalid value: "{shown}":'
        f' strconv.ParseUint: parsing "{shown}": {reason}'
    )


NAMES = ["limit", "timeoutSeconds", "continue", "resourceVersion", MATCH, "sendInitialEvents"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text())))
def test_any_query_makes_options_or_a_bad_request(query: list[tuple[str, str]]) -> None:
    for parse in (ListOptions.from_query, WatchOptions.from_query, GetOptions.from_query):
        try:
            options = parse(query)
        except BadRequest:
            continue
        assert options.resource_version == dict(reversed(query)).get("resourceVersion", "")

"""Selectors against a brute-force matcher over all small label sets, and against hostile text."""

from __future__ import annotations

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from btreecache.errors import BadRequest
from btreecache.selectors import FieldSelector, LabelSelector, escape, unescape

VALUES = (None, "", "a", "1", "2", "b")
SETS = [
    {name: value for name, value in zip("ab", row, strict=True) if value is not None}
    for row in itertools.product(VALUES, repeat=2)
]
#: Text of one requirement on K, and what it means, told apart from the product's code.
MEANINGS = {
    "K": lambda v: v is not None,
    "!K": lambda v: v is None,
    "K=a": lambda v: v == "a",
    "K==": lambda v: v == "",
    "K!=a": lambda v: v != "a",
    "K in (a,)": lambda v: v in ("a", ""),
    "K notin (a,1)": lambda v: v not in ("a", "1"),
    "K>1": lambda v: v == "2",
    "K<2": lambda v: v == "1",
}
ONES = [(text.replace("K", key), key, test) for key in "ab" for text, test in MEANINGS.items()]


def test_every_small_selector_on_every_small_label_set() -> None:
    for size in (1, 2, 3):
        for chosen in itertools.combinations(ONES, size):
            selector = LabelSelector.parse(",".join(text for text, _, _ in chosen))
            assert LabelSelector.parse(str(selector)) == selector
            for labels in SETS:
                expected = all(test(labels.get(key)) for _, key, test in chosen)
                pairs = tuple(itertools.chain(*labels.items()))
                assert selector.matches(labels) is expected
                assert selector.matches_pairs(pairs) is expected


@given(st.text(st.sampled_from("abin/.-=!<>(), \\\0é\udc80\ud800") | st.characters(), max_size=60))
def test_any_text_parses_and_prints_back_or_is_a_bad_request(text: str) -> None:
    for kind in (LabelSelector, FieldSelector):
        try:
            selector = kind.parse(text)
        except BadRequest as error:
            str(error).encode()
        else:
            assert kind.parse(str(selector)) == selector
            assert hash(kind.parse(str(selector))) == hash(selector)


@given(st.text(), st.text())
def test_any_field_value_survives_its_escape(value: str, other: str) -> None:
    assert unescape(escape(value)) == value
    selector = FieldSelector.parse(f"f={escape(value)}")
    assert selector.matches({"f": other}) is (other == value)
    match = FieldSelector.parse(f"f!={escape(value)}").bind(("g", "f"))
    assert match(("", other)) is (other != value)


def test_huge_selectors_are_parsed_in_linear_time() -> None:
    for unit in ("a=b,", "a in (", "(", "!", ",", "\\", "=", "x", "-", "a.", "é,"):
        for prefix in ("", "a in (", "f="):
            text = prefix + unit * 20_000
            for kind in (LabelSelector, FieldSelector):
                start, message = time.process_time(), ""
                try:
                    kind.parse(text)
                except BadRequest as error:
                    message = str(error)
                assert len(message) < 3 * len(text) + 100_000
                assert time.process_time() - start < 2

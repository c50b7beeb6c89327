"""Cells of objects of any shape: there is a cell for every column, whatever an object holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import btreecache.encoding.columns
from btreecache.encoding.columns import Columns, columns_of
from btreecache.resources import BUILT_IN
from tests.encoding.table_samples import CELLS, NOW, resource

#: Put in the place of every value of every sample, one at a time.
INTRUDERS: list[Any] = [
    None, True, False, 0, -1, 1 << 31, 1 << 63, -(1 << 63) - 1, 10**5000, 1.5, float("inf"), "",
    "x", "\ud800", "2026-05-04T11:50:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    [], {}, [None], [[]], ["x", 1, {}, {"name": {}}], {"": None}, {"type": []}, {"x": {"y": []}},
]  # fmt: skip


def check(columns: Columns, one: dict[str, Any]) -> None:
    cells = columns.cells(one, NOW)
    assert len(cells) == len(columns.columns)
    for cell, column in zip(cells, columns.columns, strict=True):
        assert type(cell) in {str, int, bool}
        if type(cell) is int:
            assert -(1 << 63) <= cell < 1 << 63
        if column.name == "Age":
            assert re.fullmatch(r"(\d+[ydhms])+|<unknown>|<invalid>", str(cell))
    if columns.completed is not None:
        assert columns.completed(one) in {"", "Succeeded", "Failed"}


def spoiled(value: Any) -> Iterator[Any]:
    """Every value that differs from `value` in one place, where an intruder is."""
    yield from INTRUDERS
    if isinstance(value, dict):
        for name, inner in value.items():
            for other in spoiled(inner):
                yield value | {name: other}
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for other in spoiled(inner):
                yield [*value[:index], other, *value[index + 1 :]]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in CELLS}))
def test_any_value_in_any_place(name: str) -> None:
    columns = columns_of(resource(name))
    # The sample with most to say.
    sample = max((one for of, one, _ in CELLS if of == name), key=lambda one: len(str(one)))
    count = 0
    for one in spoiled(sample):
        if isinstance(one, dict):
            check(columns, one)
            count += 1
    assert count > 50


#: Every name that the cells ask for, so that random objects have something to find.
NAMES = sorted(
    {
        name
        for path in Path(btreecache.encoding.columns.__file__).parent.glob("*.py")
        for name in re.findall(r'"([a-z][A-Za-z]*)"', path.read_text())
    }
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from(["Ready", "True", "Always", "Completed", "2026-05-04T11:50:00Z"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=30,
)
TOP = st.dictionaries(st.sampled_from(["metadata", "spec", "status", *NAMES]), VALUES)


@settings(max_examples=75, deadline=None)
@given(TOP)
def test_any_object(one: dict[str, Any]) -> None:
    for of in BUILT_IN.all:
        check(columns_of(of), one)


def test_the_names_are_found() -> None:
    assert {"containerStatuses", "metadata", "spec", "restartPolicy"} <= set(NAMES)

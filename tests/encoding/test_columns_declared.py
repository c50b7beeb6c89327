"""Columns that definitions declare: paths, and what cells show of what they lead to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache.encoding.columns.declared import STEPS_MAX, declared, reached, steps_of
from btreecache.resources import PrinterColumn

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z

OBJECT: dict[str, Any] = {
    "metadata": {"name": "tom", "generation": 3, "labels": {"a.b/c": "x"}},
    "spec": {"color": "black", "legs": 4, "weight": 4.5, "wild": False, "none": None,
             "toys": ["ball", "string"], "a-b_c": 1, "it's": 2},
    "status": {
        "conditions": [{"type": "Fed", "status": "False"}, {"type": "Ready", "status": "True"}],
        "born": "2025-12-31T23:00:00Z",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".spec.color", ["black"]),
        (".spec", [OBJECT["spec"]]),
        (".spec.no", []),
        (".spec.color.deeper", []),
        (".spec['color']", ["black"]),
        ('.spec["color"]', ["black"]),
        (".spec['it\\'s']", [2]),
        (".spec.a-b_c", [1]),
        (r".metadata.labels.a\.b/c", ["x"]),
        (".metadata.labels['a.b/c']", ["x"]),
        (".spec.toys[0]", ["ball"]),
        (".spec.toys[-1]", ["string"]),
        (".spec.toys[2]", []),
        (".spec.toys[-3]", []),
        (".spec.color[0]", []),
        (".spec.toys[*]", ["ball", "string"]),
        (".status.conditions[*].type", ["Fed", "Ready"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?( @.type == 'Fed' )].status", ["False"]),
        ('.status.conditions[?(@.type=="No")].status', []),
        ('.status[?(@.type=="Ready")]', []),
        (".spec.none", [None]),
    ],
)
def test_paths(path: str, values: list[object]) -> None:
    steps = steps_of(path)
    assert steps is not None
    assert [*reached(steps, OBJECT)] == values


@pytest.mark.parametrize(
    "path",
    ["", "spec", ".", "..spec", ".spec.", ".spec[", ".spec[x]", ".spec[1:2]", ".spec[0,1]",
     "{.spec}", ".spec[?(@.a>1)]", ".spec.toys[?(@.a=='b'&&@.c=='d')]", ".a" * (STEPS_MAX + 1),
     "[?(@.a==1)]", ".spec.toys[99999999999]", ".a\\", ".a b"],
)  # fmt: skip
def test_what_is_no_path(path: str) -> None:
    assert steps_of(path) is None
    assert declared((PrinterColumn("X", "string", path),)).cells(OBJECT, NOW) == ["tom", None]


@pytest.mark.parametrize(
    ("kind", "path", "cell"),
    [
        ("string", ".spec.color", "black"),
        ("string", ".spec.legs", "4"),
        ("string", ".spec.wild", "false"),
        ("string", ".spec.toys", '["ball","string"]'),
        ("string", ".spec.toys[*]", "ball"),
        ("string", ".spec.none", None),
        ("string", ".spec.no", None),
        ("integer", ".spec.legs", 4),
        ("integer", ".spec.weight", 4),
        ("integer", ".spec.color", None),
        ("integer", ".spec.wild", None),
        ("number", ".spec.weight", 4.5),
        ("number", ".spec.legs", 4),
        ("number", ".spec.color", None),
        ("boolean", ".spec.wild", False),
        ("boolean", ".spec.legs", None),
        ("date", ".status.born", "60m"),
        ("date", ".spec.color", "<invalid>"),
        ("date", ".spec.legs", None),
        ("integer", ".metadata.generation", 3),
        ("nonsense", ".spec.legs", None),
    ],
)
def test_cells(kind: str, path: str, cell: object) -> None:
    columns = declared((PrinterColumn("X", kind, path),))
    assert columns.cells(OBJECT, NOW) == ["tom", cell]
    assert path.split(".")[1].partition("[")[0] in columns.reads


def test_what_a_column_says_of_itself() -> None:
    first, second = declared(
        (
            PrinterColumn("A", "date", ".a", "date-time", "Said.", 1),
            PrinterColumn("B", "string", ".b"),
        )
    ).columns[1:]
    assert [*first.members().values()] == ["A", "date", "date-time", "Said.", 1]
    assert [*second.members().values()] == ["B", "string", "", "What is at .b.", 0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from("ab"), one, max_size=2),
    max_leaves=6,
)
PATHS = st.lists(
    st.sampled_from([".a", ".b", "[0]", "[*]", ".*", "['a']", '[?(@.a=="b")]', "[-1]"]), max_size=5
).map("".join)


@settings(max_examples=40)
@given(VALUES, PATHS | st.text(".ab[]()?@=\"'*0\\", max_size=10), st.sampled_from(
    ["string", "integer", "number", "boolean", "date"]))  # fmt: skip
def test_no_object_breaks_a_table(value: Any, path: str, kind: str) -> None:
    columns = declared((PrinterColumn("X", kind, path),))
    name, cell = columns.cells({"a": value, "metadata": value}, NOW)
    assert type(name) is str
    assert cell is None or type(cell) in (str, int, float, bool)

"""docs/conformance.md is complete and true: every behaviour once, every test that it names is one.

The list of behaviours is kept apart from the page, so that a row can't vanish unnoticed.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.conformance import test_gets, test_lists

ROOT = Path(__file__).parents[2]
PAGE = "docs/conformance.md"

#: What is held not by a test but by the nature of the thing; a reason has to follow.
NOT_APPLICABLE = "not applicable: "

#: `path::name`; with `[case]` the row of that name in a table test, with `[]` that of the behaviour
#: itself. A path without a folder is of this one.
_TEST = re.compile(r"`(?P<path>[\w/]+\.py)::(?P<name>test_\w+)(?:\[(?P<case>[^\]`]*)\])?`")


def sections(text: str, heading: str) -> dict[str, list[str]]:
    """The lines under each heading, blank ones and comments left out."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(heading, line):
            found[match[1]] = lines = []
        elif found and line and not line.startswith("#"):
            lines.append(line)
    return found


def behaviours() -> dict[str, list[str]]:
    """What upstream's tests name, by section."""
    text = (ROOT / "tests/conformance/behaviours.txt").read_text()
    return sections(text, r"\[(.+)\]")


def rows() -> dict[str, list[list[str]]]:
    """The cells of each row of the page's tables, by section."""
    found = {}
    for name, lines in sections((ROOT / PAGE).read_text(), "## (.+)").items():
        table = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        found[name] = [[cell.strip() for cell in row] for row in table[2:]]
    return found


SECTIONS = [*behaviours()]
ROWS = [(name, *row) for name, table in rows().items() for row in table]


@cache
def found_in(path: str) -> tuple[frozenset[str], frozenset[str]]:
    """The test functions of a file, and all its short texts, the names of cases among them."""
    folder = ROOT if "/" in path else Path(__file__).parent
    nodes = [*ast.walk(ast.parse((folder / path).read_text()))]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    texts = {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return frozenset(functions), frozenset(texts)


def test_the_sections_are_the_same() -> None:
    assert [*rows()] == SECTIONS


@pytest.mark.parametrize("section", SECTIONS)
def test_every_behaviour_is_on_the_page_once(section: str) -> None:
    expected = behaviours()[section]
    assert len({*expected}) == len(expected)
    found = [row[0] for row in rows()[section]]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_every_row_is_held_by_tests_that_exist_or_says_why_not(row: tuple[str, ...]) -> None:
    _, behaviour, held_by, note = row
    if held_by.startswith(NOT_APPLICABLE):
        assert len(held_by) > len(NOT_APPLICABLE), behaviour
        assert "::" not in held_by
    else:
        assert _TEST.sub("", held_by).strip(", ") == "", "only tests"
        assert _TEST.search(held_by), behaviour
    for test in _TEST.finditer(held_by + note):
        functions, texts = found_in(test["path"])
        assert test["name"] in functions, test[0]
        assert test["case"] is None or (test["case"] or behaviour) in texts, test[0]


def test_what_differs_is_a_row_of_the_page_of_reads() -> None:
    """`*differs* (row)`: the row is there."""
    reads = (ROOT / "docs/reads.md").read_text()
    marked = [row for row in ROWS if "*differs*" in row[3]]
    assert marked
    for row in marked:
        names = re.findall(r"\*differs\* \(([\w-]+)\)", row[3])
        assert len(names) == row[3].count("*differs*"), row[1]
        assert [name for name in names if f"\n| {name} | " not in reads] == [], row[1]


def test_rows_that_differ_are_marked() -> None:
    """What a table test says of itself, the page says too."""
    notes = {behaviour: note for _, behaviour, _, note in ROWS}
    tables = [*test_lists.ROWS, *test_gets.GETS, *test_gets.NON_RECURSIVE]
    differing = [row for row in tables if row.differs and row.name in notes]
    assert differing
    for row in differing:
        assert f"*differs* ({row.differs})" in notes[row.name], row.name


def test_the_page_is_found() -> None:
    assert "(conformance.md)" in (ROOT / "docs/index.md").read_text()

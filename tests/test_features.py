"""Feature gates: parsed as Kubernetes does, the table of docs/reads.md, honoured by the plan.

That the gates of encoding are honoured is in tests/server.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from btreecache.errors import BadRequest
from btreecache.features import GATES, Features
from btreecache.options import ListOptions, WatchOptions
from btreecache.plan import Situation, plan_list

PAGE = (Path(__file__).parents[1] / "docs/reads.md").read_text()
NAMES = [
    "ConsistentListFromCache", "ListFromCacheSnapshot", "StreamingCollectionEncodingToJSON",
    "StreamingCollectionEncodingToProtobuf", "WatchList",
]  # fmt: skip
PLANNED = ["ConsistentListFromCache", "ListFromCacheSnapshot", "WatchList"]


def test_the_gates_are_those_of_the_page() -> None:
    block = PAGE.split("| gate | stage | off |\n", 1)[1].split("\n\n", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[1:]
    ]
    assert [row[:2] for row in rows] == [[gate.name, gate.stage] for gate in GATES]
    assert [gate.name for gate in GATES] == NAMES


def test_defaults_agree() -> None:
    assert all(Features().enabled(gate.name) == gate.default for gate in GATES)
    assert str(GATES[1]) == "ListFromCacheSnapshot=true|false (BETA - default=true)"
    assert all(gate.on != gate.off for gate in GATES)


@pytest.mark.parametrize("values", [*product((True, False), repeat=len(NAMES))])
def test_what_is_written_is_read(values: tuple[bool, ...]) -> None:
    text = ",".join(f"{name}={value}" for name, value in zip(NAMES, values, strict=True))
    features = Features.parse(text)
    assert tuple(map(features.enabled, NAMES)) == values
    assert Features.parse(str(features)) == features


@pytest.mark.parametrize(
    ("text", "watch_list"),
    [("", True), (",,", True), ("WatchList=f", False), (" WatchList = 0 ,", False),
     ("WatchList=false,WatchList=T", True)],
)  # fmt: skip
def test_forms(text: str, watch_list: bool) -> None:
    assert Features.parse(text) == Features(watch_list=watch_list)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WatchList", "missing bool value for WatchList"),
        ("Nothing,WatchList=x", "missing bool value for Nothing"),
        (
            "WatchList=yes",
            'invalid value of WatchList=yes, err: strconv.ParseBool: parsing "yes": invalid syntax',
        ),
        (
            "WatchList=tR",
            'invalid value of WatchList=tR, err: strconv.ParseBool: parsing "tR": invalid syntax',
        ),
        ("Nothing=true", "unrecognized feature gate: Nothing"),
        ("watchlist=true", "unrecognized feature gate: watchlist"),
        ("=true", "unrecognized feature gate: "),
    ],
)
def test_errors_are_worded_as_in_kubernetes(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Features.parse(text)
    assert str(caught.value) == message


def test_each_gate_changes_something() -> None:
    """What exactly is in tests/test_plan.py."""

    def behaviour(features: Features) -> tuple[object, ...]:
        situation = Situation(features=features, current=9, oldest=5, progress_safe=True)
        exact = ListOptions(resource_version="7", resource_version_match="Exact")
        return (
            plan_list(ListOptions(), situation, b"p/").first,
            plan_list(exact, situation, b"p/").first,
            WatchOptions().defaulted(features),
        )

    on = behaviour(Features())
    for index, name in enumerate(PLANNED):
        off = behaviour(Features.parse(f"{name}=false"))
        assert [a == b for a, b in zip(on, off, strict=True)] == [i != index for i in range(3)]


def test_an_unknown_name_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Features().enabled("Nothing")

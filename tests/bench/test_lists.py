"""The benches of lists measure what they say, on the same bytes as their rivals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import pytest

from btreecache.codec.transcode import json_of
from btreecache.encoding.media import MediaType
from btreecache.encoding.values import Values
from tests.bench import lists, memory
from tests.bench.lists import OURS, Rival, Row, answers_of, elements_of, http_rows, row
from tests.bench.serving import PATHS, Answer, Served, download, objects, started

COUNT, SIZE = 40, 20_000


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with started("configmaps", COUNT, SIZE, updates=3) as found:
        yield found


@pytest.mark.parametrize("kind", PATHS)
def test_objects_are_of_their_size_and_in_order(kind: str) -> None:
    found = [*objects(kind, 1_100, 2_600)]
    assert [one.key for one in found] == sorted({one.key for one in found})
    assert all(2_300 <= len(one.value) <= 2_610 for one in found)
    names = {json.loads(one.value)["metadata"]["name"] for one in found}
    assert len(names) == len(found)
    assert not any(b"@" in one.value for one in found)


def test_what_is_stored_as_protobuf_is_the_same_object() -> None:
    for text, wire in zip(
        objects("pods", 5, 2_600), objects("pods", 5, 2_600, stored="protobuf"), strict=True
    ):
        assert text.key == wire.key
        assert json.loads(json_of(wire.value)) == json.loads(text.value)


def test_a_row_names_its_figures_and_what_it_misses() -> None:
    times = {OURS: [2.0, 2.0, 4.0], "join": [1.0, 1.0, 2.0], "json": [8.0, 80.0, 80.0]}
    found = row("LIST", times, {"join": 0.6, "json": 4.0}, "26 MB")
    assert found.rivals == (Rival("join", 1.0, 0.5, 0.6), Rival("json", 80.0, 20.0, 4.0))
    assert found.missed == ["join"]
    assert str(found) == (
        "LIST: 2.00 s; 0.50x as fast as join (1.00 s, target 0.6x);"
        " 20x as fast as json (80.0 s, target 4x); 26 MB  MISSED: join"
    )
    assert str(Row("first byte", 0.02, limit_s=0.01)).endswith("target < 10.0 ms  MISSED: limit")
    assert Row("first byte", 0.005, limit_s=0.01).missed == []


def test_lists_in_one_process() -> None:
    # Each of these compares the bytes of the rivals before it measures.
    rows = [*lists.json_rows(30, 2, Random(1)), *lists.protobuf_rows(30, 2, Random(1))]
    names = [one.name for one in rows]
    assert len(set(names)) == len(names) == 6
    assert {rival.name for one in rows for rival in one.rivals} >= {"join", "orjson", "json"}
    assert all(one.ours_s > 0 for one in rows)
    # Kept where it fits, and half of it in half the room.
    assert "15 kept of 30" in rows[4].note or "14 kept of 30" in rows[4].note


def test_first_bytes() -> None:
    rows = [*lists.first_byte_rows(20, 5_000, 50, 2)]
    assert len({one.name for one in rows}) == 8
    assert all(one.limit_s == 0.01 for one in rows)


def test_fan_out_sends_what_was_prebuilt() -> None:
    rows = [*lists.fan_out_rows(20, 1, Random(1))]
    assert len({one.name for one in rows}) == 8
    assert {rival.name for one in rows for rival in one.rivals} == {
        "prebuilt, same loop", "prebuilt, nothing polled", "prebuilt, copied",
    }  # fmt: skip


def test_lists_over_http(server: Served) -> None:
    rows = [*http_rows(server, "some", "configmaps", 1, Random(1))]
    assert [one.name.split(", ")[-1] for one in rows] == ["wall", "CPU"] * 3
    assert all(one.rivals[0].name == "one buffer" for one in rows)
    # The rival sends what ours does.
    path = PATHS["configmaps"]
    ours, theirs = server.text(path), server.text(f"/bench/one-buffer{path}")
    assert ours == theirs
    assert len(json.loads(ours)["items"]) == COUNT
    values = {one.key: one.value for one in elements_of("configmaps", COUNT, SIZE)}
    assert b"".join(answers_of("configmaps").page(elements_of("configmaps", 1, SIZE), lists.META))
    stored = {json.loads(value)["metadata"]["name"] for value in values.values()}
    assert {one["metadata"]["name"] for one in json.loads(ours)["items"]} == stored


def test_a_burst_is_measured(server: Served) -> None:
    found = memory.burst(server, memory.STREAMED, 4, (0.0, 50e6))
    assert found.whole == 4
    assert found.refused == 0
    assert found.survived
    assert len({one.size for one in found.answers}) == 1
    assert found.idle_bytes > 10 << 20
    assert len(found.samples) >= 1
    assert 0 <= found.above_idle < 50 << 20
    assert "4 of 4 lists complete" in str(found)


def test_what_is_cut_off_is_not_whole(server: Served) -> None:
    connection = server.connection()
    refused = download(connection, "/api/v1/nothing")
    connection.close()
    assert (refused.status, refused.whole) == (404, False)
    answers = (Answer(200, 10, True, 0.1, 1.0), Answer(500, 0, False, 0.0, 1.0),
               Answer(200, 3, False, 0.1, 1.0))  # fmt: skip
    found = memory.Burst("one", 1 << 20, 3 << 20, 1.0, ((0.0, 0), (0.5, 1 << 20)), answers, False)
    assert (found.whole, found.refused, found.above_idle) == (1, 1, 2 << 20)
    assert str(found).endswith("1 refused, 1 cut off or never answered; the server answers no more")


def test_protobuf_is_of_the_same_objects() -> None:
    wire = answers_of("pods", media=MediaType("protobuf"), values=Values())
    from_json = b"".join(wire.page(elements_of("pods", 5, 2_600), lists.META))
    from_wire = b"".join(wire.page(elements_of("pods", 5, 2_600, "protobuf"), lists.META))
    assert from_json == from_wire

"""/metrics: what is exported is what docs/serve.md lists, and counts what happened."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from btreecache.archive import Archive
from btreecache.errors import FeedFault
from btreecache.event import Batch
from btreecache.resources import parse_resource
from btreecache.server.caches import served
from btreecache.server.counts import Asked, Finished, RequestCounts
from btreecache.server.observed import Observed, asked_of
from tests.server.visit import visit
from tests.server.world import World

PODS = "/api/v1/pods"
IN_PODS = "", "v1", "pods"
PAGE = (Path(__file__).parents[2] / "docs/serve.md").read_text()
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[\w, ]*) ?\|", re.M)


class Scrape(NamedTuple):
    families: dict[str, Metric]

    def value(self, name: str, /, **labels: str) -> float:
        """The one sample of that name, without the prefix, that has these labels."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == f"btreecache_{name}" and labels.items() <= sample.labels.items()
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]


def scrape(world: World) -> Scrape:
    answer = world.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape({one.name: one for one in text_string_to_metric_families(answer.text)})


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which a little of everything has happened."""
    archive = Archive.open(str(tmp_path_factory.mktemp("archive") / "a.fs"))
    with archive, World(archive=archive.history) as world:
        for name in "pqrst":
            world.put_pod("a", name, node="n1" if name == "p" else "n2")
        world.put_pod("b", "z", node="n2")
        assert len(world.names(PODS)) == 6
        assert len(world.names(f"{PODS}?limit=2")) == 2
        assert world.names(f"{PODS}?fieldSelector=spec.nodeName%3Dn1") == ["p"]
        assert world.names("/api/v1/namespaces/b/pods") == ["z"]
        assert world.get("/api/v1/namespaces/a/pods/p").status_code == 200
        assert world.get("/api/v1/namespaces/a/pods/nobody").status_code == 404
        assert world.client.post(PODS).status_code == 405
        with world.watch(f"{PODS}?watch=1&resourceVersion=0") as frames:
            assert len([*islice(frames, 6)]) == 6
        world.wait_for(lambda: watches(world) == 0)
        yield world


def watches(world: World) -> float:
    return scrape(world).value("longrunning_requests", verb="WATCH", resource="pods")


def test_what_is_exported_is_what_the_page_lists(busy: World) -> None:
    listed = {
        row["name"]: (row["type"], frozenset(filter(None, re.split(r"[, ]+", row["labels"]))))
        for row in ROW.finditer(PAGE)
    }
    exported = {}
    for family in scrape(busy).families.values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.documentation, name
        assert family.samples, f"the scene has no sample of {name}"
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert len(labels) == 1, name
        exported[name] = family.type, labels.pop()
    assert exported == listed


def test_it_counts_what_happened(busy: World) -> None:
    found, pods = scrape(busy), {"group": "", "resource": "pods"}
    every = pods | {"version": "v1", "scope": "cluster"}
    assert found.value("request_total", **every, verb="LIST", code="200") == 3
    assert found.value("request_total", **every, verb="WATCH", code="200") == 1
    assert found.value("request_total", **every, verb="POST", code="405") == 1
    one = every | {"scope": "resource", "verb": "GET"}
    assert [found.value("request_total", **one, code=code) for code in ("200", "404")] == [1, 1]
    assert found.value("request_duration_seconds_count", **one) == 2
    assert found.value("response_sizes_count", **every, verb="LIST") == 3
    assert found.value("response_sizes_sum", **every, verb="LIST") > 500
    # This very scrape.
    assert found.value("current_inflight_requests", request_kind="readOnly") == 1
    stats = busy.cache.stats()
    assert found.value("watch_cache_events_received_total", **pods) == stats.received_events
    assert found.value("watch_cache_events_dispatched_total", **pods) == stats.applied_events
    assert found.value("watch_cache_resource_version", **pods) == busy.cache.revision
    assert found.value("watch_cache_capacity", **pods) == stats.snapshots
    assert found.value("resource_objects", **pods) == 6
    assert found.value("cache_list_total", **pods, index="f:spec.nodeName") == 1
    assert found.value("cache_list_fetched_objects_total", **pods, index="f:spec.nodeName") == 1
    assert found.value("cache_list_total", **pods, index="") == 3
    assert found.value("cache_list_fetched_objects_total", **pods, index="") == 6 + 2 + 1
    assert found.value("cache_list_returned_objects_total", **pods) == 6 + 2 + 1 + 1
    assert found.value("watch_cache_read_wait_seconds_count", **pods) >= 1
    assert found.value("watch_events_total", **pods, version="v1") >= 6
    assert found.value("watch_events_sizes_count", **pods, version="v1") >= 6
    assert found.value("feature_enabled", name="WatchList", stage="BETA") == 1
    assert found.families["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_openmetrics_for_who_asks(busy: World) -> None:
    answer = busy.get("/metrics", Accept="application/openmetrics-text; version=1.0.x;q=0.9")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics.text_string_to_metric_families(answer.text)}
    assert names == {*scrape(busy).families}


def test_no_request_makes_a_name() -> None:
    """However many paths, methods and queries clients invent, the labels stay those of what is."""
    crd = parse_resource("example.com/v1/widgets:Widget:namespaced")
    with World(resources=[crd], at_start=()) as world:
        for number in range(10):
            world.get(f"/api/v1/namespaces/n{number}/pods/p{number}")
            world.get(f"/apis/example.com/v1/widgets{number}")
            world.get(f"/apis/group{number}/v1/pods?watch=nonsense{number}")
            world.get(f"/apis/example.com/v1{number}/widgets")
            world.client.request(f"METHOD{number}", "/api/v1/pods")
            world.get(f"/apis/example.com/v1/widgets?labelSelector=!!{number}")
        found = scrape(world)
        labels = {
            (sample.labels["verb"], sample.labels["resource"], sample.labels["code"])
            for sample in found.families["btreecache_request"].samples
        }
        assert labels == {
            ("GET", "", "404"), ("GET", "pods", "404"),
            ("LIST", "widgets", "400"), ("other", "pods", "405"),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "query", "asked"),
    [
        ("GET", PODS, b"", Asked("LIST", *IN_PODS, "cluster")),
        ("GET", PODS, b"watch=1", Asked("WATCH", *IN_PODS, "cluster")),
        ("GET", PODS, b"watch=false", Asked("LIST", *IN_PODS, "cluster")),
        ("GET", PODS, b"x=watch", Asked("LIST", *IN_PODS, "cluster")),
        ("GET", PODS, b"\xff\xfewatch=%ff&watch=1", Asked("WATCH", *IN_PODS, "cluster")),
        ("GET", "/api/v1/namespaces/a/pods", b"watch", Asked("WATCH", *IN_PODS, "namespace")),
        ("GET", "/api/v1/namespaces/a/pods/x", b"watch=1", Asked("GET", *IN_PODS, "resource")),
        ("BREW", PODS, b"", Asked("other", *IN_PODS, "cluster")),
        ("PATCH", "/apis/apps/v1/deployments", b"",
         Asked("PATCH", "apps", "v1", "deployments", "cluster")),
        ("GET", "/healthz", b"", Asked("GET")),
        ("GET", "/api/v1/namespaces/%/pods", b"", Asked("GET")),
        ("GET", "/nowhere", b"watch=1", Asked("GET")),
    ],
)  # fmt: skip
def test_what_is_asked(method: str, path: str, query: bytes, asked: Asked) -> None:
    scope = {"method": method, "path": path, "query_string": query}
    assert asked_of(scope, served()) == asked


def test_a_watch_is_counted_while_it_is_open(world: World) -> None:
    revision = world.put_pod("a", "x")
    with world.watch(f"{PODS}?watch=1&resourceVersion={revision}") as frames:
        world.put_pod("a", "y")
        next(frames)
        found = scrape(world)
        assert watches(world) == 1
        assert found.value("watch_events_total", resource="pods") == 1
        assert found.value("terminated_watchers_total", resource="pods") == 0
        # What was told is wrong: its watchers are sent away.
        with pytest.raises(FeedFault):
            world.cache.apply(Batch(1, ()))
        world.cache.replace(world.cache.revision, [])
        assert next(frames)["type"] == "ERROR"
    world.wait_for(lambda: watches(world) == 0)
    found = scrape(world)
    assert found.value("terminated_watchers_total", resource="pods") == 1
    assert found.value("watch_cache_feed_faults_total", resource="pods") == 1


#: Stands for what an answer that is cut off has yet to say.
CUT = b"cut"


#: Stands for what an answer that is cut off has yet to say.
CUT = b"cut"


class Clock:
    now_s = 5.0


@pytest.mark.parametrize(
    ("messages", "fails", "wanted"),
    [
        ([200, b""], False, (200, True, 0)),
        ([404, b"abc", b"defg"], False, (404, True, 7)),
        ([200, b"abc", b"defg", CUT], True, (200, False, 7)),
        ([200], True, (200, False, 0)),
        ([], False, (499, False, 0)),
        ([], True, (499, False, 0)),
    ],
)
def test_observed_sees_how_a_request_ends(
    messages: list[int | bytes], fails: bool, wanted: tuple[int, bool, int]
) -> None:
    clock, counts, ended = Clock(), RequestCounts(), list[Finished]()

    async def app(scope: object, receive: object, send: object) -> None:
        assert counts.under_way == {Asked("GET"): 1}
        clock.now_s += 2
        for at, message in enumerate(messages):
            last = at == len(messages) - 1
            if isinstance(message, int):
                await send({"type": "http.response.start", "status": message})
            elif message is not CUT:
                await send({"type": "http.response.body", "body": message, "more_body": not last})
        if fails:
            raise RuntimeError("cut off")

    observed = Observed(
        app, served, counts, lambda _, finished: ended.append(finished), lambda: clock.now_s
    )
    if fails:
        with pytest.raises(RuntimeError, match="cut off"):
            asyncio.run(visit(observed, "/"))
    else:
        asyncio.run(visit(observed, "/"))
    assert ended == [Finished(Asked("GET"), *wanted, 2.0)]
    assert +counts.under_way == {}
    assert counts.finished == {(Asked("GET"), wanted[0]): 1}
    assert counts.seconds[Asked("GET")].total == 2.0

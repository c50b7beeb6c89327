"""Metrics: what is counted anywhere in a server, in the forms that Prometheus scrapes.

The names are the API server's with `btreecache_` for `apiserver_` (docs/serve.md lists them all).
The numbers are plain and lie with what they count; they are read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from btreecache.cache import Stats
from btreecache.features import GATES
from btreecache.metrics import Histogram
from btreecache.server.caches import Caches, ResourceCache
from btreecache.server.counts import RequestCounts
from btreecache.server.overload import Overload

K = TypeVar("K")
V = TypeVar("V")

PREFIX: Final = "btreecache_"

#: As upstream: a float holds no larger integer exactly.
REVISION_MODULUS: Final = 10**15

_RESOURCE: Final = ("group", "resource")
_VERSIONED: Final = ("group", "version", "resource")
_ASKED: Final = ("verb", "group", "version", "resource", "scope")

#: A metric's samples: label values, and a number.
Counted = Iterable[tuple[Sequence[str], float]]


def _lag(one: ResourceCache, stats: Stats) -> float | None:
    cache = one.cache
    return max(0, stats.current - cache.durable_revision) if cache.archive else None


class _Of(NamedTuple):
    """A metric of each cache: a counter where its name says so."""

    name: str
    text: str
    value: Callable[[ResourceCache, Stats], float | None]


_OF_CACHES: Final = (
    _Of("watch_cache_events_received_total", "Events that the source has sent.",
        lambda _, stats: stats.received_events),
    _Of("watch_cache_events_dispatched_total", "Events that were applied and published.",
        lambda _, stats: stats.applied_events),
    _Of("watch_cache_initializations_total", "Lists of the source that a window began with.",
        lambda _, stats: stats.replacements),
    _Of("watch_cache_feed_faults_total", "Times that the source broke its contract.",
        lambda _, stats: stats.feed_faults),
    _Of("watch_cache_ready", "Whether the newest state is served: 0 or 1.",
        lambda one, _: one.ready),
    _Of("watch_cache_age_seconds", "Seconds since the source was last heard.",
        lambda one, _: one.cache.age_s),
    _Of("watch_cache_resource_version", "Newest revision that can be read, modulo 10^15.",
        lambda _, stats: stats.current % REVISION_MODULUS),
    _Of("watch_cache_oldest_resource_version", "Oldest one, modulo 10^15.",
        lambda _, stats: stats.oldest % REVISION_MODULUS),
    _Of("watch_cache_capacity", "Revisions in the window, each with its snapshot.",
        lambda _, stats: stats.snapshots),
    _Of("watch_cache_retained_bytes", "What the window keeps beside the newest snapshot.",
        lambda _, stats: stats.retained_bytes),
    _Of("resource_objects", "Objects in the newest snapshot.",
        lambda _, stats: stats.elements),
    _Of("unreadable_objects", "Objects of it that can't be decoded.",
        lambda one, _: len(one.cache.unreadable)),
    _Of("archive_lag_revisions", "How far what is on disk is behind the newest revision.",
        _lag),
    _Of("storage_list_total", "Lists that were read from the source.",
        lambda one, _: one.reader.counts.source.lists),
    _Of("storage_list_fetched_objects_total", "Objects that these fetched.",
        lambda one, _: one.reader.counts.source.fetched),
    _Of("storage_list_returned_objects_total", "Objects that they answered.",
        lambda one, _: one.reader.counts.source.returned),
)  # fmt: skip


class ServerCollector(Collector):
    """Every metric of a server but the process's own, as it is now. Any thread."""

    def __init__(self, caches: Caches, requests: RequestCounts, overload: Overload) -> None:
        self._caches = caches
        self._requests = requests
        self._overload = overload

    def collect(self) -> Iterator[Metric]:
        """The metrics with their samples. O(caches, and what was asked of them)."""
        yield from self._of_requests()
        caches = self._caches.begun()
        yield from _of_caches(caches)
        yield from _of_lists(caches)
        yield from _of_watches(caches)
        yield from self._of_overload()
        yield from self._of_server()

    def _of_requests(self) -> Iterator[Metric]:
        requests = self._requests
        yield _counter(
            "request_total", "Requests that are over.", (*_ASKED, "code"),
            (((*asked, str(code)), count) for (asked, code), count in _now(requests.finished)),
        )  # fmt: skip
        seconds, sizes = _now(requests.seconds), _now(requests.sizes)
        yield _histogram(
            "request_duration_seconds", "How long they took; watches left out.", _ASKED, seconds
        )
        yield _histogram(
            "response_sizes", "Bytes of their answers' bodies; watches left out.", _ASKED, sizes
        )
        under_way = _now(requests.under_way)
        yield _gauge(
            "longrunning_requests", "Watches that are open.",
            _ASKED, ((asked, count) for asked, count in under_way if asked.lasts),
        )  # fmt: skip
        inflight = sum(count for asked, count in under_way if not asked.lasts)
        yield _gauge(
            "current_inflight_requests", "Other requests that are being answered.",
            ("request_kind",), [(("readOnly",), inflight)],
        )  # fmt: skip

    def _of_overload(self) -> Iterator[Metric]:
        overload = self._overload
        for name, text, value in (
            ("flowcontrol_current_executing_requests", "Lists of more than a page under way.",
             overload.turns.running),
            ("flowcontrol_current_inqueue_requests", "Those that wait for their turn.",
             overload.turns.waiting),
        ):  # fmt: skip
            yield _gauge(name, text, (), [((), value)])
        yield _counter(
            "flowcontrol_rejected_requests_total", "Lists and watches that got 429 for overload.",
            (), [((), overload.rejected)],
        )  # fmt: skip

    def _of_server(self) -> Iterator[Metric]:
        blocks, caches = self._caches.blocks.stats(), self._caches
        for name, text, value in (
            ("blocks_used_bytes", "Compressed runs of lists that are kept.", blocks.used_bytes),
            ("blocks_budget_bytes", "What they may take.", caches.blocks.budget_bytes),
            ("compact_revision", "Revision below which the source has forgotten; 0: not known.",
             caches.compact_revision % REVISION_MODULUS),
        ):  # fmt: skip
            yield _gauge(name, text, (), [((), value)])
        for name, text, value in (
            ("blocks_computed_total", "Runs that were compressed.", blocks.computed),
            ("blocks_evicted_total", "Runs that others took the place of.", blocks.evicted),
        ):
            yield _counter(name, text, (), [((), value)])
        yield _gauge(
            "feature_enabled", "Whether a feature gate is on: 0 or 1.",
            ("name", "stage"),
            (((gate.name, gate.stage), caches.features.enabled(gate.name)) for gate in GATES),
        )  # fmt: skip


def _of_caches(caches: list[ResourceCache]) -> Iterator[Metric]:
    stats = [(one, one.cache.stats()) for one in caches]
    for name, text, value in _OF_CACHES:
        make = _counter if name.endswith("_total") else _gauge
        found = ((_labels(one), value(one, counted)) for one, counted in stats)
        known = [(labels, number) for labels, number in found if number is not None]
        yield make(name, text, _RESOURCE, known)
    waits = [(_labels(one), one.reader.counts.waits) for one in caches]
    yield _histogram(
        "watch_cache_read_wait_seconds", "How long reads waited for a revision.", _RESOURCE, waits
    )


def _of_lists(caches: list[ResourceCache]) -> Iterator[Metric]:
    found = [
        ((*_labels(one), index), counts)
        for one in caches
        for index, counts in _now(one.reader.counts.cached)
    ]
    labels = (*_RESOURCE, "index")
    yield _counter(
        "cache_list_total", "Lists from snapshots, by the index that found their objects.",
        labels, ((names, counts.lists) for names, counts in found),
    )  # fmt: skip
    yield _counter(
        "cache_list_fetched_objects_total", "Objects that were looked at for these.",
        labels, ((names, counts.fetched) for names, counts in found),
    )  # fmt: skip
    yield _counter(
        "cache_list_returned_objects_total", "Objects that they answered.",
        _RESOURCE, _sums((names[:2], counts.returned) for names, counts in found),
    )  # fmt: skip


def _of_watches(caches: list[ResourceCache]) -> Iterator[Metric]:
    frames = [
        ((one.resource.group, version, one.resource.plural), counts)
        for one in caches
        for version, counts in _now(one.frames)
    ]
    yield _counter(
        "watch_events_total", "Frames that watches were sent, bookmarks and errors among them.",
        _VERSIONED, ((names, counts.sizes.count) for names, counts in frames),
    )  # fmt: skip
    yield _histogram(
        "watch_events_sizes", "Bytes of these.",
        _VERSIONED, ((names, counts.sizes) for names, counts in frames),
    )  # fmt: skip
    yield _counter(
        "terminated_watchers_total", "Watches that ended with 410 Expired after they had begun.",
        _RESOURCE,
        _sums(((group, plural), counts.terminated) for (group, _, plural), counts in frames),
    )  # fmt: skip


def _labels(one: ResourceCache) -> tuple[str, str]:
    return one.resource.group, one.resource.plural


def _now(of: dict[K, V]) -> list[tuple[K, V]]:
    """The items of what others go on adding to: one step of the interpreter, so none is lost."""
    return list(of.items())


def _sums(found: Iterable[tuple[tuple[str, ...], float]]) -> Counted:
    sums: dict[tuple[str, ...], float] = {}
    for labels, number in found:
        sums[labels] = sums.get(labels, 0) + number
    return sums.items()


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Counted) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Counted) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _histogram(
    name: str,
    text: str,
    labels: tuple[str, ...],
    samples: Iterable[tuple[Sequence[str], Histogram]],
) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, histogram in samples:
        below = accumulate(histogram.counts)
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        family.add_metric(values, [*zip(bounds, below, strict=True)], histogram.total)
    return family


class Exposition:
    """What is answered to a scrape. Any thread."""

    def __init__(self, caches: Caches, requests: RequestCounts, overload: Overload) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(ServerCollector(caches, requests, overload))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type: OpenMetrics for who asks for it, else the older text
        format. O(samples), about 10 us each."""
        if "application/openmetrics-text" in accept:
            made = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return made, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

"""A source that tells the truth on a bad line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from btreecache import Batch, Compacted, Element, Progress, Unavailable
from btreecache.source import Listing, RangePage, Stream
from btreecache.sources.simulated import SimulatedSource, SimulatedStream
from etcdsim.model import Model
from etcdsim.simulator import Truth


class Shaky(SimulatedSource):
    """The truth on a bad line: `rng` makes streams break, repeat and lose their place; calls fail
    while `away`. What it says is otherwise true. `meanwhile` is called before it answers a read,
    `listed` when it has told a follower all of a list."""

    def __init__(self, model: Model) -> None:
        super().__init__(Truth(model), "shaky")
        self.rng: Random | None = None
        self.away = False
        self.trouble = 0.08  # how often a stream does what it shouldn't
        self.refused = 0
        self.streaming = False
        self.meanwhile: Callable[[], None] = lambda: None
        self.listed: Callable[[int], None] = lambda revision: None

    def _refuse(self) -> None:
        if self.away:
            self.refused += 1
            raise Unavailable("away")

    def current_revision(self) -> int:
        self._refuse()
        return super().current_revision()

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self._refuse()
        self.meanwhile()
        return super().range_at(revision, prefix, start, limit, keys_only)

    def list(self, prefix: bytes) -> Listing:
        listing = super().list(prefix)

        def elements() -> Iterator[Element]:
            yield from listing.elements
            self.listed(listing.revision)

        return Listing(listing.revision, elements())

    def watch(self, prefix: bytes, after: int) -> Stream:  # type: ignore[override]
        self._refuse()
        stream = ShakyStream(self, super().watch(prefix, after))
        self.streaming = True
        return stream


class ShakyStream:
    def __init__(self, source: Shaky, stream: SimulatedStream) -> None:
        self.source, self.stream = source, stream
        self.last: Batch | None = None

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        rng = self.source.rng
        kind = (
            rng.choice(["lost", "compacted", "repeat"])
            if rng and rng.random() < self.source.trouble
            else ""
        )
        if kind == "lost" or self.source.away:
            raise Unavailable("lost")
        if kind == "compacted":
            raise Compacted(0)
        if kind == "repeat" and self.last is not None:
            return self.last
        item = self.stream.receive(0)
        self.last = item if isinstance(item, Batch) else self.last
        return item

    def request_progress(self) -> bool:
        return self.stream.request_progress()

    def close(self) -> None:
        self.source.streaming = False
        self.stream.close()

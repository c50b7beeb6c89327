"""What a server counts of its requests and watches, as plain numbers.

Names are what was routed (a resource that is served, a verb that is known), never what a client
wrote: a client can't make these grow without end.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from btreecache.metrics import Histogram

#: Upper bounds as upstream: seconds of a request, bytes of an answer and of a watch's frame.
SECONDS: Final = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
    15.0, 20.0, 30.0, 45.0, 60.0,
)  # fmt: skip
ANSWER_BYTES: Final = tuple(float(10**power) for power in range(3, 10))
FRAME_BYTES: Final = tuple(float(1024 << power) for power in range(8))

#: The code of a request whose client went before there was an answer.
CLIENT_GONE: Final = 499


class Asked(NamedTuple):
    """What a request is about, as its labels say it.

    verb       GET, LIST, WATCH; of what can't be read another method, or "other"
    resource   its plural; "", and so its group and version, where no objects are asked for
    scope      resource (one object), namespace, cluster, or ""
    """

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    scope: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it has no end of its own."""
        return self.verb == "WATCH"


class Finished(NamedTuple):
    """A request that is over.

    code    of the answer; CLIENT_GONE: there was none
    whole   the answer came to its end
    size    bytes of its body
    """

    asked: Asked
    code: int
    whole: bool
    size: int
    seconds: float


class RequestCounts:
    """The requests of a server. Counted on one event loop; any thread may read.

    finished       how many are over, by what was asked and the code of the answer
    seconds, sizes of those that end by themselves
    under_way      how many are being answered, by what is asked
    """

    def __init__(self) -> None:
        self.finished: Counter[tuple[Asked, int]] = Counter()
        self.seconds: dict[Asked, Histogram] = {}
        self.sizes: dict[Asked, Histogram] = {}
        self.under_way: Counter[Asked] = Counter()

    def begin(self, asked: Asked) -> None:
        """Count a request that has come in."""
        self.under_way[asked] += 1

    def end(self, finished: Finished) -> None:
        """Count one that is over."""
        asked = finished.asked
        self.under_way[asked] -= 1
        self.finished[asked, finished.code] += 1
        if asked.lasts:
            return
        if asked not in self.seconds:
            self.seconds[asked] = Histogram(SECONDS)
            self.sizes[asked] = Histogram(ANSWER_BYTES)
        self.seconds[asked].observe(finished.seconds)
        self.sizes[asked].observe(finished.size)


class FrameCounts:
    """What the watches of one resource in one version were sent. As RequestCounts.

    sizes        bytes of each frame
    terminated   watches that ended with 410: their readers were slower than history is kept, or it
                 was cut
    """

    def __init__(self) -> None:
        self.sizes = Histogram(FRAME_BYTES)
        self.terminated = 0

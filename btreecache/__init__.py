"""A snapshottable watch cache: an immutable B-tree snapshot for every revision in a window.

`Store` makes its own revisions; `Cache` with a `Follower` follows a source; `Checker` compares a
cache with a truth. What needs an extra is imported from its own room (`btreecache.sources`).
"""

from btreecache.cache import Cache, State, Stats
from btreecache.consistency import Checker, Difference, Round
from btreecache.element import Element
from btreecache.errors import (
    BadRequest,
    BtreecacheError,
    Compacted,
    Conflict,
    FeedFault,
    FutureRevision,
    MissingExtra,
    NotReady,
    SourceError,
    Unavailable,
)
from btreecache.event import Batch, Event, Progress
from btreecache.features import Features
from btreecache.follow import Follower
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.snapshot import Page, Snapshot
from btreecache.store import Delete, Put, Store
from btreecache.tree import ABSENT, Aggregate, Diff, Tree
from btreecache.watch import Watcher
from btreecache.window import Bounds

__all__ = [
    "ABSENT",
    "Aggregate",
    "BadRequest",
    "Batch",
    "Bounds",
    "BtreecacheError",
    "Cache",
    "Checker",
    "Compacted",
    "Conflict",
    "Delete",
    "Diff",
    "Difference",
    "Element",
    "Event",
    "Features",
    "FeedFault",
    "Follower",
    "FutureRevision",
    "GetOptions",
    "ListOptions",
    "MissingExtra",
    "NotReady",
    "Page",
    "Progress",
    "Put",
    "Round",
    "Snapshot",
    "SourceError",
    "State",
    "Stats",
    "Store",
    "Tree",
    "Unavailable",
    "WatchOptions",
    "Watcher",
]

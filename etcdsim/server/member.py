"""Member: the one state behind all services of a simulated etcd, a cluster of one member."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from etcdsim import wire
from etcdsim.auth import Auth
from etcdsim.errors import ErrCorrupt, ErrNoSpace, ErrRequestTooLarge
from etcdsim.hash_kv import KvHashes, keeps_tombstones
from etcdsim.model import Model

VERSION = "3.5.30"  # the newest that could be compared with a real server
CLUSTER_ID, MEMBER_ID, RAFT_TERM = 0x0CDF818194E3A8C32, 0x8E9E05C52164694D, 2
PROGRESS_NOTIFY_INTERVAL_S = 600.0  # etcd's default
REQUEST_BYTES_MAX = 1_572_864  # etcd's --max-request-bytes
_ENVELOPE_BYTES = 18  # what a request of that size gets around it on its way to the log
_PAGE_BYTES = 4096
NOSPACE, CORRUPT = 1, 2  # of AlarmType


class Call(Protocol):
    """A stream in progress, as a handler sees it: messages, no gRPC."""

    metadata: dict[str, str]

    async def read(self) -> Any:
        """The next request message, None once the client has sent its last one."""

    async def write(self, message: Any) -> None:
        """Send a response, or its bytes; waits while the client doesn't read."""


#: What answers a method, by its shape. Each raises EtcdError for an error status.
Unary = Callable[[Any], Any]  # request -> response, or an awaitable of it
Answering = Callable[[Any, Call], Awaitable[None]]  # Method.answers: (request, call)
Streaming = Callable[[Call], Awaitable[None]]  # Method.stream

#: What a service module gives: its methods, and what answers each.
Handlers = dict[wire.Method, Unary | Answering | Streaming]


#: (method, request, metadata of the call)
Permit = Callable[[wire.Method, Any, Mapping[str, str]], None]


def parse_version(text: str) -> tuple[int, int, int]:
    """`3.5.30` -> (3, 5, 30). Raises ValueError, in one line, also below 3.4 and from 4 on."""
    match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})", text)
    numbers = tuple(map(int, match.groups())) if match else ()
    if len(numbers) != 3 or not (3, 4) <= numbers < (4,):
        raise ValueError(f"not a version of etcd from 3.4.0 on: {text!r}")
    return numbers[0], numbers[1], numbers[2]


class Member:
    """A model, and what belongs to the member rather than to the store.

    `clock`: seconds that never go back. `new_id`: a positive int64 at random, for tokens. One
    thread, that of the event loop. Raises ValueError for a version that isn't emulated.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        new_id: Callable[[], int],
        *,
        version: str = VERSION,
        model: Model | None = None,
        progress_notify_interval_s: float = PROGRESS_NOTIFY_INTERVAL_S,
    ) -> None:
        self.clock = clock
        self.version, self.version_text = parse_version(version), version
        if model is None:
            model = Model(keeps_tombstones=keeps_tombstones(self.version))
        self.model = model
        self.hashes = KvHashes(model, self.version)
        self.progress_notify_interval_s = progress_notify_interval_s
        self.cluster_id, self.member_id, self.raft_term = CLUSTER_ID, MEMBER_ID, RAFT_TERM
        self.raft_index = 4  # of a fresh member; every request that writes adds one
        self.client_url = ""  # known once it listens
        self.alarms: set[tuple[int, int]] = set()  # (type, member)
        self.auth = Auth(new_id)
        #: Raises what is to be answered to a call that its user may not make.
        self.permit: Permit = lambda *_: None
        self.db_bytes = 5 * _PAGE_BYTES
        self._listeners: list[Callable[[], None]] = []
        self._told = self._state()

    def _state(self) -> tuple[int, int]:
        return self.model.revision, self.model.compact_revision

    def header(self, revision: int | None = None) -> Any:
        """A response header, by default of the current revision."""
        return wire.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            revision=self.model.revision if revision is None else revision,
            raft_term=self.raft_term,
        )

    def is_alarmed(self, kind: int) -> bool:
        """Whether any member has raised this alarm."""
        return any(raised == kind for raised, _ in self.alarms)

    def propose(self, request: Any, adds: bool = False) -> None:
        """To be called before a write is done: what would go through the log of a cluster.

        `adds`: whether it needs space. Raises ErrRequestTooLarge, ErrCorrupt, ErrNoSpace.
        """
        size = request.ByteSize() + _ENVELOPE_BYTES
        if size > REQUEST_BYTES_MAX:
            raise ErrRequestTooLarge
        self.raft_index += 1
        if self.is_alarmed(CORRUPT):
            raise ErrCorrupt
        if adds and self.is_alarmed(NOSPACE):
            raise ErrNoSpace
        self.db_bytes += size

    @property
    def db_size(self) -> int:
        """A plausible size of the backend: whole pages of what was written since the start."""
        return -(-self.db_bytes // _PAGE_BYTES) * _PAGE_BYTES

    def compact(self, revision: int) -> None:
        """Compact the model. Raises ErrCompacted, ErrFutureRev."""
        if self.model.compact_revision < revision <= self.model.revision:
            self.hashes.before_compaction(revision)
        self.model.compact(revision)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every write and compaction -> what ends that.

        It runs before the response of the write is sent, and must neither wait nor write.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self) -> None:
        """To be called after the model may have changed: whoever subscribed is told if it did.

        For requests the server does it; who writes on their own (leases that expire) calls it.
        """
        state = self._state()
        if state != self._told:
            self._told = state
            for listener in tuple(self._listeners):
                listener()

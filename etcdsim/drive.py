"""Drive: the seeded traffic of a profile, on any etcd.

A profile writes to a model of its own, as in the simulator; each of its writes becomes one request
to the etcd, which gets the next one when it has answered. So the same seed means the same requests,
in the same order, but for revisions: what an API server writes is guarded by the revision that it
knows of the key, and that number is the server's. Nobody's answer is part of what is written next,
hence the keys and values are at the end those of the simulator.

A request that isn't answered is made again: what it may have done is done no other way the second
time. Keys that somebody else wrote meanwhile are a conflict, and written over, as controllers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from typing import Any, NamedTuple

from etcdsim import wire
from etcdsim.calls import Calls, operation
from etcdsim.clock import VirtualClock
from etcdsim.model import DeleteResult, Model, PutResult, TxnResult
from etcdsim.prng import Prng
from etcdsim.traffic import make_profile
from etcdsim.txn import OPS_MAX, Compare, DeleteRange, Op, Put

GIVE_UP_S = 30.0  # without an answer
RETRY_S = 0.2
_FORGET_REVISIONS = 10_000  # between two compactions of the own model
_STEPS = 50  # of latency, for each factor of e: a quantile is right to 1 %


class Latencies:
    """How long requests took, in bounded memory. One thread."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one. O(1)."""
        self._steps[round(_STEPS * log(max(seconds, 1e-6)))] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds in which `share` of them were done, to 1 %; None if there are none."""
        left = share * self._steps.total()
        for step in sorted(self._steps):
            left -= self._steps[step]
            if left <= 0:
                return exp(step / _STEPS)
        return None


class Write(NamedTuple):
    """One write of a profile."""

    ops: tuple[Op, ...]
    is_single: bool  # a put or a delete by itself, no transaction


class _Recorder(Model):
    """A model that notes what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Write] = []

    def put(self, key: bytes, value: bytes, lease: int = 0) -> PutResult:
        self.written.append(Write((Put(key, value),), is_single=True))
        return super().put(key, value, lease)

    def delete_range(self, key: bytes, range_end: bytes = b"") -> DeleteResult:
        self.written.append(Write((DeleteRange(key, range_end),), is_single=True))
        return super().delete_range(key, range_end)

    def delete_keys(self, keys: Iterable[bytes]) -> DeleteResult:
        # What the end of a lease does. A transaction has at most 128 operations.
        ops = tuple(DeleteRange(key) for key in sorted(set(keys)))
        for start in range(0, len(ops), OPS_MAX):
            self.written.append(Write(ops[start : start + OPS_MAX], is_single=False))
        return super().delete_keys(op.key for op in ops)

    def txn(
        self, compares: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op] = ()
    ) -> TxnResult:
        assert not compares, "a profile knows what it wrote"
        self.written.append(Write(tuple(success), is_single=False))
        return super().txn(compares, success, failure)


class Driver:
    """Traffic on an etcd: `run`, once. One thread.

    prefix     before every key of the profile's
    clock      seconds that never go back
    wait       wait(seconds) -> whether to stop; called before every request and between retries
    compact    compact the whole store after so many writes, 0: never
    Raises ValueError, in one line, for a profile or a seed that there isn't.
    """

    def __init__(
        self,
        calls: Calls,
        profile: str,
        *,
        seed: int,
        prefix: bytes,
        clock: Callable[[], float],
        wait: Callable[[float], bool],
        rate: float | None = None,
        compact: int = 0,
    ) -> None:
        self.model = _Recorder()
        self._profile = make_profile(profile, Prng(seed).fork(f"profile {profile}"), VirtualClock())
        self._guards = profile == "kubernetes"  # writes as an API server does
        self.calls, self._prefix = calls, prefix
        self._clock, self._wait, self._rate, self._compact = clock, wait, rate, compact
        self._revisions: dict[bytes, int] = {}  # at which the etcd has each key, as far as known
        self._began = clock()
        self.latencies = Latencies()
        self.requests = self.writes = self.failures = self.conflicts = self.revision = 0
        self.is_lost = False  # it gave up: the etcd answers no more

    def run(self, objects: int, writes: int | None, duration_s: float | None) -> None:
        """Create the objects, then write, until one of the bounds or a stop."""
        self._began = self._clock()
        deadline = None if duration_s is None else self._began + duration_s
        self._profile.load(self.model, objects)
        if not self._send(deadline):
            return
        while (writes is None or self.writes < writes) and self._profile_step(deadline):
            if self._compact and self.writes % self._compact == 0:
                self.calls.ask(wire.COMPACT, wire.CompactionRequest(revision=self.revision))

    def _profile_step(self, deadline: float | None) -> bool:
        self._profile.step(self.model)
        done = self._send(deadline)
        self.writes += done
        if self.model.revision % _FORGET_REVISIONS == 0:
            self.model.compact(self.model.revision)
        return done

    def _send(self, deadline: float | None) -> bool:
        """What the profile has written since -> whether all of it is done."""
        written, self.model.written = self.model.written, []
        return all(self._do(write, deadline) for write in written)

    def _do(self, write: Write, deadline: float | None) -> bool:
        due = 0.0 if self._rate is None else self._began + self.requests / self._rate
        if self._wait(max(0.0, due - self._clock())):
            return False
        if deadline is not None and self._clock() >= deadline:
            return False
        give_up = self._clock() + GIVE_UP_S
        while True:
            before = self._clock()
            answer = self.calls.ask(*self._request(write))
            if answer is not None:
                self.latencies.add(self._clock() - before)
                give_up = self._clock() + GIVE_UP_S
                if self._is_done(write, answer):
                    self.requests += 1
                    return True
                self.conflicts += 1
            else:
                self.failures += 1
            if self._clock() >= give_up:
                self.is_lost = True
                return False
            if self._wait(0.0 if answer is not None else RETRY_S):
                return False

    def _request(self, write: Write) -> tuple[wire.Method, Any]:
        ops = [self._placed(op) for op in write.ops]
        single = ops[0] if write.is_single else None
        if isinstance(single, Put) and not self._guards:
            return wire.PUT, wire.PutRequest(key=single.key, value=single.value)
        if isinstance(single, DeleteRange) and not (self._guards and not single.range_end):
            request = wire.DeleteRangeRequest(key=single.key, range_end=single.range_end)
            return wire.DELETE_RANGE, request
        request = wire.TxnRequest(success=[operation(op) for op in ops])
        if single is not None:
            # As kube-apiserver's storage does: if the key is as known, else tell how it is.
            known = self._revisions.get(single.key, 0)
            request.compare.add(
                target=wire.Compare.MOD, key=single.key, mod_revision=known
            )  # result: EQUAL
            request.failure.add(request_range=wire.RangeRequest(key=single.key))
        return wire.TXN, request

    def _placed(self, op: Op) -> Put | DeleteRange:
        if isinstance(op, Put):
            return Put(self._prefix + op.key, op.value)
        assert isinstance(op, DeleteRange)
        end = op.range_end and self._prefix + op.range_end
        return DeleteRange(self._prefix + op.key, end)

    def _is_done(self, write: Write, answer: Any) -> bool:
        """Whether it is written; else what was found is known now."""
        if write.is_single and self._guards and hasattr(answer, "succeeded"):
            op = self._placed(write.ops[0])
            if not answer.succeeded:
                found = answer.responses[0].response_range.kvs
                self._revisions[op.key] = found[0].mod_revision if found else 0
                return False
        self.revision = answer.header.revision
        for placed in map(self._placed, write.ops):
            if isinstance(placed, Put):
                self._revisions[placed.key] = self.revision
            elif placed.range_end:
                for key in [k for k in self._revisions if placed.key <= k < placed.range_end]:
                    del self._revisions[key]
            else:
                self._revisions.pop(placed.key, None)
        return True

    def summary(self) -> dict[str, Any]:
        """What was done so far, for JSON. Latencies in milliseconds, the rate in requests/s."""
        seconds = self._clock() - self._began
        quantiles = {
            name: self.latencies.quantile(share)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        }
        return {
            "requests": self.requests,
            "writes": self.writes,
            "failures": self.failures,
            "conflicts": self.conflicts,
            "revision": self.revision,
            "seconds": round(seconds, 3),
            "rate": round(self.requests / seconds, 1) if seconds > 0 else 0.0,
            "latency_ms": {
                name: None if value is None else round(1000 * value, 3)
                for name, value in quantiles.items()
            },
        }

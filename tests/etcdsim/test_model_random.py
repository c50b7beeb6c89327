"""The model against the plainest thing that could be right: a dict for every revision."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.model import KeyValue, Model
from etcdsim.prng import Prng
from etcdsim.txn import DeleteRange, Op, Put

KEYS = [b"a", b"a\0", b"a\0\0", b"b", b"b\xff", b"b\xff\xff", b"c", b"c\x01", b"\xff", b"\xff\xff"]
STEPS = 120


@dataclass
class Naive:
    """Every revision's whole state, and its events in order."""

    states: dict[int, dict[bytes, KeyValue]] = field(default_factory=lambda: {1: {}})
    events: dict[int, list[tuple[str, KeyValue]]] = field(default_factory=lambda: {1: []})
    revision: int = 1

    def apply(self, ops: list[Op]) -> None:
        state, events, revision = dict(self.states[self.revision]), [], self.revision + 1
        for op in ops:
            if isinstance(op, Put):
                old = state.get(op.key)
                created, version = (old.create_revision, old.version) if old else (revision, 0)
                state[op.key] = KeyValue(op.key, op.value, created, revision, version + 1)
                events.append(("put", state[op.key]))
            elif isinstance(op, DeleteRange):
                for key in sorted(state):
                    if inside(key, op.key, op.range_end):
                        del state[key]
                        events.append(("delete", KeyValue(key, b"", 0, revision, 0)))
        if events:
            self.revision = revision
            self.states[revision], self.events[revision] = state, events


def inside(key: bytes, low: bytes, range_end: bytes) -> bool:
    if not range_end:
        return key == low
    return key >= low and (range_end == b"\0" or key < range_end)


def draw_ops(prng: Prng) -> list[Op]:
    kind = prng.below(10)
    if kind < 5:
        return [Put(prng.choice(KEYS), prng.bytes(prng.below(4)))]
    if kind < 7:
        return [DeleteRange(prng.choice(KEYS))]
    if kind < 8:
        return [DeleteRange(prng.choice(KEYS), prng.choice([*KEYS, b"\0"]))]
    several = {prng.choice(KEYS): prng.below(3) for _ in range(5)}
    return [Put(k, b"t") if how else DeleteRange(k) for k, how in several.items()]


def check_everything(model: Model, naive: Naive, compacted: int) -> None:
    assert model.revision == naive.revision
    bounds = [(b"\0", b"\0"), (b"b", b""), (b"a\0", b"c"), (b"b", b"\0"), (b"c", b"a")]
    for revision in range(1, naive.revision + 1):
        if revision < compacted:
            with pytest.raises(ErrCompacted):
                model.range(b"a", revision=revision)
            continue
        found = model.events_at(revision)
        assert [(event.kind, event.kv) for event in found] == naive.events[revision]
        for low, end in bounds:
            state = naive.states[revision]
            expected = [state[key] for key in sorted(state) if inside(key, low, end)]
            for limit in (0, 1, 3):
                result = model.range(low, end, revision, limit)
                assert result.kvs == expected[: limit or None]
                assert result.count == len(expected)
                assert result.more == (len(expected) > len(result.kvs))
            assert list(model.scan(low, end, revision)) == expected
            assert list(model.scan(low, end, revision, reverse=True)) == expected[::-1]
    with pytest.raises(ErrFutureRev):
        model.range(b"a", revision=naive.revision + 1)


@pytest.mark.parametrize("seed", range(30))
def test_against_a_dict_for_every_revision(seed: int) -> None:
    prng, model, naive, compacted = Prng(seed), Model(), Naive(), -1
    for step in range(STEPS):
        ops = draw_ops(prng)
        if len(ops) == 1 and isinstance(ops[0], Put):
            model.put(ops[0].key, ops[0].value)
        elif len(ops) == 1 and isinstance(ops[0], DeleteRange):
            model.delete_range(ops[0].key, ops[0].range_end)
        else:
            model.txn([], ops)
        naive.apply(ops)
        if prng.below(25) == 0 and compacted < naive.revision:
            compacted = max(compacted, 0) + 1 + prng.below(naive.revision - max(compacted, 0))
            model.compact(compacted)
            check_everything(model, naive, compacted)
        if step % 40 == 39:
            check_everything(model, naive, compacted)

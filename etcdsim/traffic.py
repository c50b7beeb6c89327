"""The workload profiles by name, and the three that aren't Kubernetes.

All keys are under `/registry/`, as in a real cluster. A population drifts back towards the number
of objects that it was loaded with.
"""

from __future__ import annotations

from etcdsim.clock import VirtualClock
from etcdsim.cluster import Cluster
from etcdsim.kubernetes import Kubernetes
from etcdsim.model import Model
from etcdsim.prng import Prng
from etcdsim.profile import Profile, Roster
from etcdsim.txn import DeleteRange, Op, Put


class Churn(Profile):
    """Keys created, updated, deleted and created again, over twice as many keys as objects.

    Values are small. One write in ten is a transaction of 2-8 keys. Some keys and values are not
    UTF-8, and some values are empty.
    """

    name = "churn"

    def load(self, model: Model, objects: int) -> None:
        self._target, self._slots = objects, 2 * objects
        self._live: Roster[None] = Roster()
        self._dead: Roster[None] = Roster()
        for slot in range(self._slots):
            (self._live if slot % 2 == 0 else self._dead).add(self._key(slot), None)
        for slot in range(0, self._slots, 2):
            model.put(self._key(slot), self._value())
            self.clock.advance(1)

    @staticmethod
    def _key(slot: int) -> bytes:
        odd = b"-\xff\x00\xc3(" if slot % 16 in {6, 7} else b""
        return b"/registry/churn/group-%02d/item-%07d%b" % (slot % 23, slot, odd)

    def _value(self) -> bytes:
        draw = self.prng.below(32)
        if draw == 0:
            return b""
        if draw < 4:
            return b"\xfe\xff" + self.prng.bytes(8 * draw)
        return b'{"value":"' + self.prng.bytes(4 * draw).hex().encode() + b'"}'

    def step(self, model: Model) -> None:
        self.clock.advance(1 + self.prng.below(19))
        draw = self.prng.below(10)
        if draw == 0:
            self._transact(model)
        elif draw < 5 and self._live:
            key, _ = self._live.pick(self.prng)
            model.put(key, self._value())
        elif self._is_growing():
            key, _ = self._dead.pick(self.prng)
            self._move(key, alive=True)
            model.put(key, self._value())
        else:
            key, _ = self._live.pick(self.prng)
            self._move(key, alive=False)
            model.delete_range(key)

    def _is_growing(self) -> bool:
        if len(self._live) == self._target:
            return bool(self._dead) and self.prng.chance(0.5)
        return len(self._live) < self._target

    def _move(self, key: bytes, alive: bool) -> None:
        goes, comes = (self._dead, self._live) if alive else (self._live, self._dead)
        goes.discard(key)
        comes.add(key, None)

    def _transact(self, model: Model) -> None:
        wanted = min(2 + self.prng.below(7), self._slots)
        least, most = max(0, wanted - len(self._dead)), min(wanted, len(self._live))
        from_live = least + self.prng.below(most - least + 1)
        live = self._live.pick_several(self.prng, from_live)
        dead = self._dead.pick_several(self.prng, wanted - from_live)
        keys = [key for key, _ in (*live, *dead)]
        ops: list[Op] = []
        for key in keys:
            alive = key not in self._live or self.prng.chance(0.5)
            ops.append(Put(key, self._value()) if alive else DeleteRange(key))
            self._move(key, alive)
        model.txn((), ops)


class HotKey(Profile):
    """A few keys get nearly all writes, the others one in twenty. One write in thirty is a
    transaction: hot keys, and a lock that comes and goes."""

    name = "hot_key"

    def load(self, model: Model, objects: int) -> None:
        self._keys = [b"/registry/hot/item-%07d" % number for number in range(objects)]
        self._hot = self._keys[: min(objects, 4)]
        self._lock_key = b"/registry/hot/lock"
        self._is_locked = False
        self._serial = 0
        for key in self._keys:
            model.put(key, self._value())
            self.clock.advance(1)

    def _value(self) -> bytes:
        self._serial += 1
        pad = b"x" * self.prng.below(64)
        return b'{"serial":%d,"pad":"%b"}' % (self._serial, pad)

    def step(self, model: Model) -> None:
        self.clock.advance(1 + self.prng.below(9))
        draw = self.prng.below(60)
        if draw < 2:
            self._transact(model)
        else:
            keys = self._keys if draw < 5 else self._hot
            model.put(self.prng.choice(keys), self._value())

    def _transact(self, model: Model) -> None:
        count = 1 + self.prng.below(len(self._hot))
        ops: list[Op] = [Put(key, self._value()) for key in self._hot[:count]]
        lock = DeleteRange(self._lock_key) if self._is_locked else Put(self._lock_key, b"held")
        self._is_locked = not self._is_locked
        model.txn((), [*ops, lock])


class LeaseStorm(Profile):
    """Sessions that are kept alive, until now and then a lease runs out and one revision deletes
    tens to hundreds of keys, which then come back, singly and a few at a time."""

    name = "lease_storm"

    def load(self, model: Model, objects: int) -> None:
        self._slots = max(2, objects)  # a revision of two deletes needs two keys
        self._live: Roster[int] = Roster()
        self._gone: list[int] = list(range(objects, self._slots))
        self._keys = [
            b"/registry/sessions/zone-%02d/session-%07d" % (slot % 17, slot)
            for slot in range(self._slots)
        ]
        for slot in range(objects):
            self._live.add(self._keys[slot], slot)
            model.put(self._keys[slot], self._value(slot))
            self.clock.advance(1)

    def _value(self, slot: int) -> bytes:
        return b'{"session":%d,"seen":%d,"token":"%b"}' % (
            slot, self.clock.now_ms, self.prng.bytes(12).hex().encode(),
        )  # fmt: skip

    def step(self, model: Model) -> None:
        self.clock.advance(1 + self.prng.below(49))
        draw = self.prng.below(64)
        if not self._live or (self._gone and draw >= 16):
            self._come_back(model)
        elif draw == 0 and not self._gone:
            self._expire(model)
        else:
            key, slot = self._live.pick(self.prng)
            model.put(key, self._value(slot))

    def _expire(self, model: Model) -> None:
        most = min(400, max(2, self._slots // 10))
        victims = self._live.pick_several(self.prng, 2 + self.prng.below(most - 1))
        for key, slot in victims:
            self._live.discard(key)
            self._gone.append(slot)
        model.delete_keys(key for key, _ in victims)

    def _come_back(self, model: Model) -> None:
        count = min(len(self._gone), 1 + self.prng.below(8))
        ops: list[Op] = []
        for _ in range(count):
            slot = self._gone.pop()
            self._live.add(self._keys[slot], slot)
            ops.append(Put(self._keys[slot], self._value(slot)))
        model.txn((), ops)


PROFILES: dict[str, type[Profile]] = {
    profile.name: profile for profile in (Kubernetes, Churn, HotKey, LeaseStorm)
}


#: For people to look at: not among those that tests and checks draw from.
SHOWN: dict[str, type[Profile]] = {Cluster.name: Cluster}


def make_profile(name: str, prng: Prng, clock: VirtualClock) -> Profile:
    """The profile of that name. Raises ValueError, in one line, for an unknown one."""
    known = PROFILES | SHOWN
    if name not in known:
        raise ValueError(f"unknown profile {name!r}: known profiles are {', '.join(known)}")
    return known[name](prng, clock)

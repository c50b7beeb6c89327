"""Lessor: which leases there are, how long they last, and which keys hang on them.

Pure: time and new ids are arguments, and nothing is deleted here. Whoever ends a lease takes its
keys from `revoke` and deletes them from the model, in one revision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from etcdsim.errors import ErrLeaseExist, ErrLeaseNotFound, ErrLeaseTTLTooLarge

TTL_MAX_S = 9_000_000_000
TTL_MIN_S = 2  # one and a half of etcd's default election timeout, in whole seconds


@dataclass(slots=True)
class Lease:
    """A lease that was granted for `ttl_s` seconds. `keys`: what hangs on it."""

    lease_id: int
    ttl_s: int
    expires_s: float
    keys: set[bytes] = field(default_factory=set)


class Lessor:
    """The leases of a store. A key hangs on one lease at most: that of its newest put.

    `clock`: seconds that never go back. `new_id`: a positive int64 at random; it is asked again for
    one in use. One thread.
    """

    def __init__(
        self, clock: Callable[[], float], new_id: Callable[[], int], *, ttl_min_s: int = TTL_MIN_S
    ) -> None:
        self._clock, self._new_id, self._ttl_min_s = clock, new_id, ttl_min_s
        self._leases: dict[int, Lease] = {}

    def __contains__(self, lease: int) -> bool:
        """Whether there is this lease; one that has expired is there until it is revoked."""
        return lease in self._leases

    def grant(self, ttl_s: int, lease_id: int = 0) -> Lease:
        """A new lease; the id 0 means any. A short, zero or negative TTL is raised to the minimum.

        Raises ErrLeaseTTLTooLarge, ErrLeaseExist.
        """
        if ttl_s > TTL_MAX_S:
            raise ErrLeaseTTLTooLarge
        if lease_id in self._leases:
            raise ErrLeaseExist
        lease_id = lease_id or self.free_id()
        ttl_s = max(ttl_s, self._ttl_min_s)
        lease = self._leases[lease_id] = Lease(lease_id, ttl_s, self._clock() + ttl_s)
        return lease

    def free_id(self) -> int:
        """An id for a new lease."""
        while (lease_id := self._new_id()) in self._leases or not lease_id:
            pass
        return lease_id

    def revoke(self, lease_id: int) -> list[bytes]:
        """Forget a lease -> the keys that hung on it, in order, for the caller to delete.

        Raises ErrLeaseNotFound.
        """
        if lease_id not in self._leases:
            raise ErrLeaseNotFound
        return sorted(self._leases.pop(lease_id).keys)

    def keep_alive(self, lease_id: int) -> int:
        """Let a lease last its whole TTL again -> that, 0 if there is none or it has expired."""
        lease = self._alive(lease_id)
        if lease is None:
            return 0
        lease.expires_s = self._clock() + lease.ttl_s
        return lease.ttl_s

    def renew(self) -> None:
        """Let every lease last its whole TTL again, as a new leader does. O(leases)."""
        now = self._clock()
        for lease in self._leases.values():
            lease.expires_s = now + lease.ttl_s

    def time_to_live(self, lease_id: int) -> tuple[int, Lease] | None:
        """Whole seconds left, and the lease; None if there is none or it has expired."""
        lease = self._alive(lease_id)
        return None if lease is None else (int(lease.expires_s - self._clock()), lease)

    def leases(self) -> list[Lease]:
        """All, the one that ends first in front; ties in the order of their grants."""
        return sorted(self._leases.values(), key=lambda lease: lease.expires_s)

    def expired(self, limit: int) -> list[int]:
        """The ids of up to `limit` leases whose time is over, in the order of their ends."""
        now = self._clock()
        over = [lease for lease in self._leases.values() if lease.expires_s <= now]
        over.sort(key=lambda lease: lease.expires_s)
        return [lease.lease_id for lease in over[:limit]]

    def attach(self, lease: int, key: bytes) -> None:
        """Let `key` hang on a lease. Raises ErrLeaseNotFound."""
        if lease not in self._leases:
            raise ErrLeaseNotFound
        self._leases[lease].keys.add(key)

    def detach(self, lease: int, key: bytes) -> None:
        """Let `key` hang on this lease no more; nothing happens if it doesn't."""
        if lease in self._leases:
            self._leases[lease].keys.discard(key)

    def keys_on(self, lease_id: int) -> frozenset[bytes]:
        """The keys that hang on a lease; none if it isn't there."""
        lease = self._leases.get(lease_id)
        return frozenset() if lease is None else frozenset(lease.keys)

    def _alive(self, lease_id: int) -> Lease | None:
        lease = self._leases.get(lease_id)
        return lease if lease is not None and lease.expires_s > self._clock() else None

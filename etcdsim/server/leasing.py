"""The Lease service, and the loop that revokes what has expired."""

from __future__ import annotations

import asyncio
from typing import Any

from etcdsim import services
from etcdsim.lease import Lessor
from etcdsim.server.member import Call, Handlers, Member
from etcdsim.server.writes import Writes

EXPIRY_INTERVAL_S = 0.5
#: etcd revokes up to 1,000 leases a second.
_REVOKED_AT_ONCE = 500


def lease_handlers(member: Member, lessor: Lessor) -> Handlers:
    """What answers the methods of Lease. `lessor`: the one of the member's model."""
    leasing = _Leasing(member, lessor)
    return {
        services.LEASE_GRANT: leasing.grant,
        services.LEASE_REVOKE: leasing.revoke,
        services.LEASE_KEEP_ALIVE: leasing.keep_alive,
        services.LEASE_TIME_TO_LIVE: leasing.time_to_live,
        services.LEASE_LEASES: leasing.leases,
    }


async def expire_leases(lessor: Lessor, writes: Writes) -> None:
    """Revoke what has expired, twice a second, until cancelled; each lease is one revision."""
    while True:
        await asyncio.sleep(EXPIRY_INTERVAL_S)
        revoked = [
            writes.submit(services.LEASE_REVOKE, services.LEASE_REVOKE.request(ID=lease_id))
            for lease_id in lessor.expired(_REVOKED_AT_ONCE)
        ]
        if revoked:  # what a client revoked first, or couldn't be done, is looked at again
            await asyncio.wait(revoked)


class _Leasing:
    def __init__(self, member: Member, lessor: Lessor) -> None:
        self._member, self._lessor = member, lessor

    def grant(self, request: Any) -> Any:
        self._member.propose(request, adds=True)
        lease = self._lessor.grant(request.TTL, request.ID)
        return services.LEASE_GRANT.response(
            header=self._member.header(), ID=lease.lease_id, TTL=lease.ttl_s
        )

    def revoke(self, request: Any) -> Any:
        self._member.propose(request)
        self._member.model.delete_keys(self._lessor.revoke(request.ID))
        return services.LEASE_REVOKE.response(header=self._member.header())

    async def keep_alive(self, call: Call) -> None:
        """One response to each request; a lease that isn't there is one with TTL 0, no error."""
        while (request := await call.read()) is not None:
            self._member.permit(services.LEASE_KEEP_ALIVE, request, call.metadata)
            ttl_s = self._lessor.keep_alive(request.ID)
            await call.write(
                services.LEASE_KEEP_ALIVE.response(
                    header=self._member.header(), ID=request.ID, TTL=ttl_s
                )
            )

    def time_to_live(self, request: Any) -> Any:
        response = services.LEASE_TIME_TO_LIVE.response(header=self._member.header(), ID=request.ID)
        found = self._lessor.time_to_live(request.ID)
        if found is None:
            response.TTL = -1
            return response
        response.TTL, lease = found
        response.grantedTTL = lease.ttl_s
        if request.keys:
            response.keys.extend(sorted(lease.keys))
        return response

    def leases(self, _: Any) -> Any:
        return services.LEASE_LEASES.response(
            header=self._member.header(),
            leases=[{"ID": lease.lease_id} for lease in self._lessor.leases()],
        )

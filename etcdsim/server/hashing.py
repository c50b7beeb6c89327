"""Hashes of histories, made a slice at a time: whoever else asks something has its turn between."""

from __future__ import annotations

import asyncio

from etcdsim.hash_kv import Hash, Hashing
from etcdsim.server.member import Member


async def one_slice(hashing: Hashing) -> None:
    """Do about a millisecond of the work, and let others have the loop."""
    hashing.step()
    await asyncio.sleep(0)


async def finished(hashing: Hashing) -> Hash:
    """The hash; it may be in the making elsewhere too."""
    while not hashing.is_done:
        await one_slice(hashing)
    return hashing.finish()


async def hash_compactions(member: Member) -> None:
    """Make the hash that each compaction leaves to be made, until cancelled: while it isn't, the
    history that is gone is still in memory."""
    compacted = asyncio.Event()

    def look() -> None:
        if member.hashes.unfinished is not None:
            compacted.set()

    unsubscribe = member.subscribe(look)
    try:
        while True:
            while (hashing := member.hashes.unfinished) is not None:
                await one_slice(hashing)
            compacted.clear()
            await compacted.wait()
    finally:
        unsubscribe()

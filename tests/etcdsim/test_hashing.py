"""Hashes are made between what others ask."""

from __future__ import annotations

import asyncio

from etcdsim.server.hashing import finished, hash_compactions
from etcdsim.server.member import Member

SLICES = 5


def written() -> Member:
    member = Member(lambda: 0.0, lambda: 1)
    for number in range(SLICES):
        member.model.put(b"k", bytes(300_000) + b"%d" % number)
    return member


def test_others_have_their_turn_after_each_slice() -> None:
    member = written()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> int:
        asking = asyncio.create_task(other())
        hashing = member.hashes.at(0)
        await asyncio.gather(finished(hashing), finished(hashing))
        asking.cancel()
        return (await finished(hashing)).number

    assert asyncio.run(run()) == member.hashes.at(0).finish().number
    assert turns >= SLICES // 2  # two made it


def test_that_of_a_compaction_is_made_unasked() -> None:
    member = written()
    expected = member.hashes.at(0).finish()

    async def run() -> None:
        working = asyncio.create_task(hash_compactions(member))
        for revision in (member.model.revision, member.model.put(b"k", b"").revision):
            await asyncio.sleep(0)
            member.compact(revision)
            assert member.hashes.unfinished is not None
            member.tell()
            for _ in range(100):
                if member.hashes.unfinished is None:
                    break
                await asyncio.sleep(0)
            assert member.hashes.unfinished is None
        working.cancel()

    asyncio.run(run())
    assert member.hashes.at(expected.revision).finish() == expected

"""A small pseudo-random generator of our own, so that a seed means the same on every Python.

SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014),
with the constants of Vigna's public-domain splitmix64.c. Integers only. Not for secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, shake_128
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_ONE = 1 << 64


class Prng:
    """One stream of numbers. One thread.

    Raises ValueError for a seed that doesn't fit in 64 bits.
    """

    __slots__ = ("_seed", "_state")

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= _MASK:
            raise ValueError(f"a seed is between 0 and 2**64 - 1: {seed}")
        self._seed = self._state = seed

    def next64(self) -> int:
        """The next number, 0 <= n < 2**64."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, n: int) -> int:
        """A number in 0 <= x < n. The bias, at most n / 2**64, is left in: no draw is rejected, so
        that every call takes exactly one number from the stream."""
        return (self.next64() * n) >> 64

    def chance(self, rate: float) -> bool:
        """True with probability `rate`: never for 0, always for 1. Takes one number whatever the
        rate, so that another rate doesn't shift what follows.

        Scaling a float by a power of two is exact, and so is comparing it with an integer.
        """
        return self.next64() < rate * _ONE

    def choice(self, sequence: Sequence[T]) -> T:
        """One of a sequence that isn't empty."""
        return sequence[(self.next64() * len(sequence)) >> 64]

    def bytes(self, n: int) -> bytes:
        """`n` bytes, from one number of the stream: its SHAKE-128, which is faster than n / 8."""
        return shake_128(self.next64().to_bytes(8, "little")).digest(n)

    def fork(self, label: str) -> Prng:
        """An independent stream that depends on this one's seed and `label` only, not on what has
        been drawn: a new consumer doesn't shift the others."""
        material = self._seed.to_bytes(8, "big") + label.encode()
        digest = blake2b(material, digest_size=8, person=b"etcdsim").digest()
        return Prng(int.from_bytes(digest, "big"))

"""The generator and the clock: pinned numbers, so that a seed means the same for ever."""

from __future__ import annotations

import pytest

from etcdsim.clock import VirtualClock
from etcdsim.prng import Prng


def test_published_vectors() -> None:
    # Of SplitMix64 with seed 1234567, from Rosetta Code's task and Vigna's C program.
    prng = Prng(1234567)
    assert [prng.next64() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_pinned_derived_numbers() -> None:
    prng = Prng(7)
    assert [prng.below(100) for _ in range(8)] == [38, 1, 90, 58, 45, 24, 46, 32]
    assert Prng(7).bytes(11).hex() == "1cdda7c9b8c548ca277e18"
    assert Prng(7).fork("a").next64() == 8413199805599618676


def test_chance_is_exact_at_both_ends() -> None:
    prng = Prng(1)
    assert not any(prng.chance(0) for _ in range(2000))
    assert all(prng.chance(1) for _ in range(2000))
    assert 400 < sum(prng.chance(0.25) for _ in range(2000)) < 600


def test_chance_takes_one_number_whatever_the_rate() -> None:
    streams = [Prng(3), Prng(3), Prng(3)]
    for prng, rate in zip(streams, (0, 0.5, 1), strict=True):
        prng.chance(rate)
    assert len({prng.next64() for prng in streams}) == 1


def test_below_and_choice_stay_inside_and_reach_everything() -> None:
    prng = Prng(5)
    assert {prng.below(7) for _ in range(500)} == set(range(7))
    assert {prng.choice("abc") for _ in range(100)} == set("abc")
    assert prng.below(1) == 0


@pytest.mark.parametrize("n", [0, 1, 8, 9, 64])
def test_bytes_have_the_length_asked_for(n: int) -> None:
    assert len(Prng(2).bytes(n)) == n


def test_a_fork_depends_on_seed_and_label_only() -> None:
    prng = Prng(9)
    before = prng.fork("x").next64()
    prng.next64()
    assert prng.fork("x").next64() == before
    assert prng.fork("y").next64() != before
    assert Prng(10).fork("x").next64() != before


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_has_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match="a seed is between"):
        Prng(seed)


def test_the_clock_only_goes_forward() -> None:
    clock = VirtualClock()
    clock.advance(1500)
    assert clock.now_ms == 1_767_225_601_500
    assert clock.now_s == 1_767_225_601.5
    with pytest.raises(ValueError, match="can't go back"):
        clock.advance(-1)

"""Checker: what it compares, how it names a difference, when it must say unknown."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from btreecache import Bounds, Cache, Checker, Element, FeedFault, Progress
from btreecache.consistency import DIFFERENCES_MAX, PAGE_KEYS, compare
from btreecache.digest import DIGESTS, element_digest, recompute
from tests.fakes import Clock, DictTruth, batch, delete, element, put

KEYS_EXAMPLE = "429f1bd04c3f692399a5c6f87ec2c3f43187d572e76f6a5893b8ff5396abfae7"
VALUES_EXAMPLE = "3ff80a1b0e550e3f582959500a3d2cb7f6f534380f53f995d5e51d035f051d52"

Sleep = Callable[[float], object]


def state(*elements: Element) -> dict[bytes, Element]:
    return {kept.key: kept for kept in elements}


def pair() -> tuple[Cache, DictTruth]:
    """A cache and a truth that agree at 10, 12 and 15."""
    a, b, c = element(b"a", b"1", 3), element(b"b", b"2", 12), element(b"c", b"3", 15)
    cache = Cache(bounds=Bounds(age_s=None))
    cache.replace(10, [a])
    cache.apply(batch(12, put(b"b", b"2", 12)))
    cache.apply(batch(15, put(b"c", b"3", 15)))
    return cache, DictTruth({10: state(a), 12: state(a, b), 15: state(a, b, c)})


def checker(
    cache: Cache, truth: DictTruth, sleep: Sleep | None = None, **options: object
) -> Checker:
    """A checker whose waits take no time."""
    clock = Clock()

    def tick(seconds: float) -> None:
        clock.now_s += seconds
        if sleep:
            sleep(seconds)

    return Checker(cache, truth, now=clock, sleep=tick, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("revisions", "checked"), [("latest", 1), (1, 1), (2, 2), (3, 3), ("all", 3)]
)
def test_agreement(revisions: object, checked: int) -> None:
    cache, truth = pair()
    outcome = checker(cache, truth).check(revisions)  # type: ignore[arg-type]
    assert (outcome.verdict, outcome.reason) == ("consistent", "")
    assert outcome.revisions_checked == checked
    assert outcome.revision == 15
    assert outcome.bytes_read > 0


def test_sampled_revisions_include_the_newest_and_the_oldest() -> None:
    cache = Cache(bounds=Bounds(age_s=None))
    cache.replace(1, [])
    for revision in range(2, 200):
        cache.apply(batch(revision, put(b"k%d" % revision, b"", revision)))
    states, now = {1: {}}, {}  # type: ignore[var-annotated]
    for revision in range(2, 200):
        now = {**now, b"k%d" % revision: element(b"k%d" % revision, b"", revision)}
        states[revision] = now
    chosen = set()
    for seed in range(5):
        truth = DictTruth(states)
        outcome = checker(cache, truth, rng=Random(seed)).check(10)
        assert (outcome.verdict, outcome.revisions_checked) == ("consistent", 10)
        assert {1, 199} <= set(truth.asked)
        chosen.add(tuple(truth.asked))
    assert len(chosen) == 5


@pytest.mark.parametrize(
    ("mine", "truths", "kind"),
    [
        ([], [element(b"x", b"", 5)], "missing"),
        ([element(b"x", b"", 5)], [], "extra"),
        ([element(b"x", b"", 5)], [element(b"x", b"", 6)], "stale"),
        ([element(b"x", b"", 6)], [element(b"x", b"", 5)], "changed"),
        ([element(b"x", b"1", 5)], [element(b"x", b"2", 5)], "changed"),
    ],
)
def test_each_kind_of_difference(mine: list[Element], truths: list[Element], kind: str) -> None:
    others = [element(b"a", b"", 1), element(b"z", b"", 1)]
    mine, truths = [others[0], *mine, others[1]], [others[0], *truths, others[1]]
    found = list(compare(mine, truths, 9, "values"))
    assert [(difference.key, difference.kind) for difference in found] == [(b"x", kind)]
    cache = Cache()
    cache.replace(9, mine)
    outcome = checker(cache, DictTruth({9: state(*truths)}), mode="values").check()
    assert outcome.verdict == "inconsistent"
    assert [difference.kind for difference in outcome.differences] == [kind]


def test_keys_mode_does_not_see_values_and_says_so_by_its_name() -> None:
    assert not list(compare([element(b"x", b"1", 5)], [element(b"x", b"2", 5)], 9, "keys"))


def test_a_wrong_older_snapshot_is_found_only_when_asked_for() -> None:
    cache, truth = pair()
    truth.states[12] = state(element(b"a", b"1", 3))
    assert checker(cache, truth).check("latest").verdict == "consistent"
    outcome = checker(cache, truth).check("all")
    assert outcome.verdict == "inconsistent"
    assert [(d.revision, d.key, d.kind) for d in outcome.differences] == [(12, b"b", "extra")]


def test_equal_content_is_enough_where_the_cache_was_not_told_of_the_revision() -> None:
    cache, truth = pair()
    truth.states[99] = truth.states[15]
    outcome = checker(cache, truth).check()
    assert (outcome.verdict, outcome.revision) == ("consistent", 99)


def test_a_difference_counts_only_once_the_cache_has_reached_the_revision() -> None:
    cache, truth = pair()
    truth.states[20] = {**truth.states[15], b"d": element(b"d", b"", 20)}
    asked = []
    outcome = checker(cache, truth, request_progress=lambda: asked.append(1)).check()
    assert (outcome.verdict, outcome.differences_total) == ("unknown", 0)
    assert "Too large resource version: 20" in outcome.reason
    assert asked
    cache.progress(Progress(20))
    outcome = checker(cache, truth).check()
    assert outcome.verdict == "inconsistent"
    assert [(d.key, d.kind) for d in outcome.differences] == [(b"d", "missing")]


def test_it_waits_for_an_event_that_is_on_its_way() -> None:
    cache, truth = pair()
    truth.states[20] = {**truth.states[15], b"d": element(b"d", b"", 20)}

    def arrive(_: float) -> None:
        if cache.revision == 15:
            cache.apply(batch(20, put(b"d", b"", 20)))

    assert checker(cache, truth, arrive).check().verdict == "consistent"


def test_a_feed_fault_is_inconsistent_even_when_all_snapshots_agree() -> None:
    cache, truth = pair()
    with pytest.raises(FeedFault):
        cache.apply(batch(15, put(b"c", b"3", 15)))
    cache.replace(15, truth.states[15].values())
    one = checker(cache, truth)
    outcome = one.check()
    assert (outcome.verdict, outcome.differences_total) == ("inconsistent", 0)
    assert [fault.kind for fault in outcome.feed_faults] == ["revision_repeated"]
    assert one.check().verdict == "consistent", "an old fault is not a new one"


def test_the_spoiled_window_is_compared_too() -> None:
    """What a lost put would have served is named, although it is not served any more."""
    cache, truth = pair()
    truth.states[16] = {**truth.states[15], b"a": element(b"a", b"x", 16, 3, 2)}
    truth.states[17] = {**truth.states[16], b"d": element(b"d", b"", 17)}
    truth.states[18] = {**truth.states[17], b"a": element(b"a", b"y", 18, 3, 3)}
    cache.apply(batch(17, put(b"d", b"", 17)))
    with pytest.raises(FeedFault):
        cache.apply(batch(18, put(b"a", b"y", 18, created=3, version=3)))
    cache.replace(18, [kept for _, kept in sorted(truth.states[18].items())])
    one = checker(cache, truth)
    outcome = one.check()
    assert [(d.revision, d.key, d.kind) for d in outcome.differences] == [(17, b"a", "stale")]
    assert one.check().verdict == "consistent", "it was mended, and is not held against it twice"


def test_unknown_when_nothing_could_be_compared() -> None:
    empty, truth = Cache(), DictTruth({5: {}})
    outcome = checker(empty, truth).check()
    assert outcome.verdict == "unknown"
    assert "not filled" in outcome.reason
    cache, compacted = pair()[0], DictTruth(pair()[1].states, compacted=99)
    outcome = checker(cache, compacted).check("all")
    assert (outcome.verdict, outcome.not_checkable) == ("unknown", 3)
    assert outcome.reason == "nothing could be compared"


def test_compacted_revisions_are_counted_not_failed() -> None:
    cache, truth = pair()
    truth.compacted = 13
    outcome = checker(cache, truth).check("all")
    assert (outcome.verdict, outcome.revisions_checked, outcome.not_checkable) == (
        "consistent",
        1,
        2,
    )


def test_differences_are_kept_up_to_a_limit_and_all_counted() -> None:
    cache = Cache()
    cache.replace(5, [])
    many = {b"%06d" % i: element(b"%06d" % i, b"", 1) for i in range(DIFFERENCES_MAX + 500)}
    outcome = checker(cache, DictTruth({5: many}), page_keys=100).check()
    assert (len(outcome.differences), outcome.differences_total) == (1000, 1500)
    assert PAGE_KEYS > 100


def test_a_deleted_key_is_compared() -> None:
    cache, truth = pair()
    cache.apply(batch(16, delete(b"b")))
    truth.states[16] = truth.states[15]
    outcome = checker(cache, truth).check()
    assert [(d.key, d.kind) for d in outcome.differences] == [(b"b", "missing")]


def test_the_digest_is_what_the_docs_write_down() -> None:
    """docs/guarantees.md gives this example; etcdsim's own implementation is tested on it too."""
    kept = element(b"key", b"value", 258)
    assert f"{element_digest(kept, 'keys'):064x}" == KEYS_EXAMPLE
    assert f"{element_digest(kept, 'values'):064x}" == VALUES_EXAMPLE
    assert recompute([kept, kept], "keys") == 2 * element_digest(kept, "keys") % 2**256


def test_digest_tells_apart_what_plain_concatenation_would_not() -> None:
    digests = {
        element_digest(kept, "values")
        for kept in (
            element(b"ab", b"", 1),
            element(b"a", b"b", 1),
            element(b"", b"ab", 1),
            element(b"ab", b"", 256),
            element(b"ab\0", b"", 1),
        )
    }
    assert len(digests) == 5


def test_the_kept_digest_equals_the_recomputed_one_at_every_snapshot() -> None:
    rng = Random(3)
    cache = Cache(bounds=Bounds(age_s=None))
    cache.replace(1, [])
    for revision in range(2, 600):
        key = b"%d" % rng.randrange(200)
        known = cache.get(key)
        if known and rng.random() < 0.3:
            cache.apply(batch(revision, delete(key)))
        else:
            created, version = (known.create_revision, known.version) if known else (revision, 0)
            cache.apply(batch(revision, put(key, b"v", revision, created, version + 1)))
    for revision in range(1, 600):
        snapshot = cache.snapshot(revision)
        for mode, aggregate in DIGESTS.items():
            assert snapshot.tree.aggregate(aggregate) == recompute(snapshot, mode)

"""Memo: exactly the least recently used goes, the budget holds, a hit is for that very element."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from btreecache.element import Element
from btreecache.encoding.memo import ENTRY_BYTES, Memo
from btreecache.encoding.values import Codec, Values

ELEMENTS = [Element(b"k%d" % (i // 2), b"v" * 10 * i, i % 2, 1, 1) for i in range(8)]
#: The same keys and revisions, of another history.
OTHERS = [Element(one.key, one.value, one.mod_revision, 1, 1) for one in ELEMENTS]


def size(element: Element, made: bytes) -> int:
    return len(made) + element.size_bytes() + ENTRY_BYTES


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["get", "put"]), st.integers(0, 7), st.booleans(),
        st.sampled_from(["a", "b"]), st.integers(0, 400),
    ),
    max_size=60,
)  # fmt: skip


@given(OPERATIONS, st.integers(0, 5_000))
def test_as_a_model(operations: list[tuple[str, int, bool, str, int]], budget: int) -> None:
    memo = Memo(budget)
    model: OrderedDict[tuple[bytes, int, str], tuple[Element, bytes]] = OrderedDict()
    for operation, number, is_other, what, length in operations:
        element = (OTHERS if is_other else ELEMENTS)[number]
        name = element.key, element.mod_revision, what
        if operation == "get":
            known = model.get(name)
            expected = known[1] if known and known[0] is element else None
            assert memo.get(what, element) == expected
            if expected is not None:
                model.move_to_end(name)
            continue
        made = b"m" * length
        memo.put(what, element, made)
        model.pop(name, None)
        if size(element, made) <= budget:
            model[name] = element, made
        while sum(size(*one) for one in model.values()) > budget:
            model.popitem(last=False)
        assert len(memo) == len(model)
        assert memo.size_bytes == sum(size(*one) for one in model.values()) <= budget


def test_what_was_used_stays() -> None:
    first, second, third = ELEMENTS[:3]
    memo = Memo(size(first, b"m") + size(second, b"m") + size(third, b"m") - 1)
    memo.put("x", first, b"m")
    memo.put("x", second, b"m")
    assert memo.get("x", first) == b"m"
    memo.put("x", third, b"m")
    assert [memo.get("x", one) for one in (first, second, third)] == [b"m", None, b"m"]


def test_values_are_made_once() -> None:
    calls = []

    def json_of(value: bytes) -> bytes:
        calls.append(value)
        return value.upper()

    values = Values(10_000, Codec(json_of, bytes.lower))
    element = ELEMENTS[3]
    assert values.json(element) == values.json(element) == element.value.upper()
    assert calls == [element.value]
    assert values.json(OTHERS[3]) == element.value.upper()
    assert len(calls) == 2
    none = Values(0, Codec(json_of, bytes.lower))
    assert none.json(element) == none.json(element)
    assert len(calls) == 4


def test_threads() -> None:
    memo = Memo(4_000)

    def work(seed: int) -> None:
        rng = Random(seed)
        for _ in range(2_000):
            element = rng.choice(ELEMENTS)
            made = memo.get("x", element)
            if made is None:
                memo.put("x", element, element.key * 3)
            else:
                assert made == element.key * 3
            assert memo.size_bytes <= 4_000 + 1_000  # read without the lock

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, seed) for seed in range(4)]:
            future.result()
    entries = memo._entries.values()
    assert memo.size_bytes == sum(one[2] for one in entries) <= 4_000

"""A list in JSON, streamed: what is stored as JSON is joined, not encoded. Constant memory.

A list that isn't huge is looked over before its first byte: then its length is known, and whatever
can't be served is refused by name. A huge one isn't, because the first byte should not wait for it:
its objects are judged as their turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from btreecache.element import Element
from btreecache.encoding.body import CHUNK_BYTES, CHUNK_BYTES_MAX, Body, Part, cut
from btreecache.encoding.form import Form
from btreecache.plan import PageMeta

#: Objects of a list that is looked over first: about two milliseconds.
LOOKED_OVER_MAX: Final = 20_000

#: Objects that are taken in one go: as many as a chunk should have, where their average is known.
STRIDE, STRIDE_MAX = 32, 1_000


def json_list(form: Form, elements: Sequence[Element], meta: PageMeta) -> Body:
    """A page of a list, `elements` in its order. Raises NotAcceptable."""
    head, foot = form.around(meta)
    if len(elements) > LOOKED_OVER_MAX:
        return Body(_chunks(form, elements, head, foot, 0))
    inner, average = form.json_length(elements)
    length = None if inner is None else len(head) + inner + len(foot)
    return Body(_chunks(form, elements, head, foot, average), length)


def _chunks(
    form: Form, elements: Sequence[Element], head: bytes, foot: bytes, average: int
) -> Iterator[bytes]:
    """`average`: bytes of an object, if all are known to go out as they are stored; else 0.

    Every item begins with a brace. Where items are cut anyway, the brace is part of what stands
    between them, so what is joined are the rests of values.
    """
    glue = b",{" if form.cut else b","
    lead = head + glue[1:] if elements else head
    held: list[Part] = []
    size = 0
    for some in _rests(form, elements, average):
        held += some
        size += sum(map(len, some))
        if size >= CHUNK_BYTES:
            yield from cut(lead + glue.join(held) if lead else glue.join(held))
            # What is joined next begins with the glue.
            lead, held, size = b"", [b""], 0
    yield from cut(b"".join((lead, glue.join(held), foot)))


def _rests(form: Form, elements: Sequence[Element], average: int) -> Iterator[Sequence[Part]]:
    """Items without what `glue` has of them. Small ones some at a time: a turn for each would
    double the time of a list."""
    begins, cut_bytes = form.begins, form.cut
    stride = STRIDE
    if average:
        stride = max(1, min(STRIDE_MAX, CHUNK_BYTES * 5 // 4 // average))
    for low in range(0, len(elements), stride):
        some = elements[low : low + stride]
        values = [one.value for one in some]
        if sum(map(len, values)) <= CHUNK_BYTES_MAX and (
            average or all(value.startswith(begins) for value in values)
        ):
            yield [value[cut_bytes:] for value in values] if cut_bytes else values
            continue
        for element in some:
            if element.value.startswith(begins):
                yield (memoryview(element.value)[cut_bytes:],)
            else:
                yield (memoryview(form.item(element))[1 if cut_bytes else 0 :],)

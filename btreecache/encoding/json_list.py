"""A list in JSON, streamed: what is stored as JSON is joined, not encoded. Constant memory.

A list that isn't huge is looked over before its first byte: then its length is known, and whatever
can't be served is refused by name. A huge one isn't, because the first byte should not wait for it:
its objects are judged as their turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from btreecache.element import Element
from btreecache.encoding.body import CHUNK_BYTES, CHUNK_BYTES_MAX, Body, Part, cut, joined
from btreecache.encoding.form import Form
from btreecache.plan import PageMeta

#: Objects of a list that is looked over first: about two milliseconds.
LOOKED_OVER_MAX: Final = 20_000

#: What a chunk has, about, where the average of its objects is known. Every chunk costs some 30 us
#: on its way through the server, so they should be as large as they may be.
PLAIN_BYTES: Final = 224 << 10


def json_list(
    form: Form, elements: Sequence[Element], meta: PageMeta, items_bytes: int | None = None
) -> Body:
    """A page of a list, `elements` in its order. Raises NotAcceptable.

    `items_bytes`: of all items with what stands between them, if it is known that all can go out as
    they are stored: then nothing has to be looked over.
    """
    head, foot = form.around(meta)
    average = 0  # bytes of an object, if all can go out as they are stored
    if items_bytes is not None:
        average = items_bytes // len(elements) + 1
    elif len(elements) <= LOOKED_OVER_MAX:
        items_bytes, average = form.json_length(elements)
    length = None if items_bytes is None else len(head) + items_bytes + len(foot)
    # Every item begins with a brace. Where items are cut anyway, the brace is part of what stands
    # between them, so what is joined are the rests of values.
    glue = b",{" if form.cut else b","
    lead = head + glue[1:] if elements else head
    if average:
        return Body(_plain(form, elements, lead, glue, foot, average), length)
    return Body(joined(_parts(form, elements, lead, glue, foot)), length)


def _parts(
    form: Form, elements: Sequence[Element], lead: bytes, glue: bytes, foot: bytes
) -> Iterator[Part]:
    """Item by item, each judged as its turn comes."""
    begins, cut_bytes = form.begins, form.cut
    brace = 1 if cut_bytes else 0
    before = lead
    for element in elements:
        yield before
        value = element.value
        if value.startswith(begins):
            yield memoryview(value)[cut_bytes:]
        else:
            yield memoryview(form.item(element))[brace:]
        before = glue
    yield foot if elements else lead + foot


def _plain(
    form: Form, elements: Sequence[Element], lead: bytes, glue: bytes, foot: bytes, average: int
) -> Iterator[bytes]:
    """Objects that can all go out as they are stored, joined as many at a time as make a chunk:
    nothing is looked at twice, so a list of small objects costs what their copies do."""
    cut_bytes = form.cut
    stride = max(1, PLAIN_BYTES // average)
    for low in range(0, len(elements), stride):
        values = [one.value for one in elements[low : low + stride]]
        if sum(map(len, values)) > CHUNK_BYTES_MAX:
            # Larger ones than most: joined, they could take any memory.
            for value in values:
                lead += value[cut_bytes:]
                if len(lead) >= CHUNK_BYTES:
                    yield from cut(lead)
                    lead = b""
                lead += glue
        else:
            rests = [value[cut_bytes:] for value in values] if cut_bytes else values
            rests[0] = lead + rests[0]
            lead = glue.join(rests)
            if len(lead) >= CHUNK_BYTES:
                yield from cut(lead)
                lead = b""
            # Smaller than thought: held until it is a chunk.
            lead += glue
    yield from cut(lead[: -len(glue)] + foot)

"""A list in Protobuf, to the byte of upstream's. Streamed; constant memory.

Lengths stand before what they measure, so every object is sized before the first byte. What is
stored as protobuf is only looked at for that; what has to be converted is converted, kept if it
fits the budget (values.py), and converted once more if it didn't. So what can't be served is
refused before anything was sent, and the length is always known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from btreecache.codec.wire import encoded
from btreecache.element import Element
from btreecache.encoding import envelope
from btreecache.encoding.body import Body, joined
from btreecache.encoding.form import Form
from btreecache.encoding.refusals import EncodingAborted
from btreecache.plan import PageMeta


def protobuf_list(form: Form, elements: Sequence[Element], meta: PageMeta) -> Body:
    """A page of a list, `elements` in its order. Raises NotAcceptable."""
    plain, items = form.entries_length(elements)
    head, foot = around(form, items, meta)
    parts = _plain(form, elements, head) if plain else _parts(form, elements, head, items)
    return Body(joined(parts), len(head) + items + len(foot))


def around(form: Form, items: int, meta: PageMeta) -> tuple[bytes, bytes]:
    """What comes before the items and after them. `items`: the bytes of all."""
    remaining = meta.remaining_item_count
    first = envelope.first(
        envelope.list_meta(meta.resource_version, meta.continue_token, remaining)
    )
    begin = envelope.head(form.api_version, form.list_kind)
    size = encoded(len(first) + items)
    return b"".join((begin, envelope.SECOND, size, first)), envelope.TAIL


def _plain(form: Form, elements: Sequence[Element], head: bytes) -> Iterator[bytes]:
    """Entries that are known to be in their envelopes as they stand."""
    yield head
    begin, end = len(form.protobuf_head), -len(envelope.TAIL)
    for element in elements:
        yield element.value[begin:end]
    yield envelope.TAIL


def _parts(form: Form, elements: Sequence[Element], head: bytes, items: int) -> Iterator[bytes]:
    yield head
    for element in elements:
        entry = form.entry(element)
        items -= len(entry)
        yield entry
    if items:
        raise EncodingAborted("the objects of a list have other sizes than at first")
    yield envelope.TAIL

"""What is kept of a cache's lists: how long they are, and what they are compressed to.

The one idea at work: both hang on the nodes of the tree, so that a list costs what has changed
since the last one. One KeptLists for each cache; it knows in which forms lists were asked for.
"""

from __future__ import annotations

from operator import add
from typing import Final

from btreecache.block import Blocks
from btreecache.element import Element
from btreecache.encoding import protobuf_list
from btreecache.encoding.answer import Answers
from btreecache.encoding.body import Body
from btreecache.encoding.deflate import RunKind, gzip_chunks, gzip_list
from btreecache.encoding.form import Form
from btreecache.encoding.parts import Parts
from btreecache.reads import ListPage
from btreecache.tree import Aggregate

#: Answers of more bytes are compressed (upstream: 128 KiB).
LEAST_BYTES: Final = 128 << 10

#: What an answer says that is compressed.
COMPRESSED: Final = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}

#: Stands in a sum of bytes for an object that can't go out as it is stored: more than any list has.
_ODD: Final = 1 << 60

_Sizes = Aggregate[bytes, Element, int]


def compressed(body: Body) -> Body:
    """Any answer as gzip, made on the fly. Raises as the body's chunks."""
    return Body(gzip_chunks(body))


class KeptLists:
    """The lists of one cache. Any thread. Compressed runs are kept within the budget of `blocks`.

    A form of lists is kept for good once it was asked for: there are as many as the cache's
    resource has versions, in JSON and in Protobuf, whole and metadata alone.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._parts = Parts(blocks)
        self._kinds: dict[tuple[str, str, str], RunKind] = {}
        self._sizes: dict[str, _Sizes] = {}

    def items_bytes(self, answers: Answers, page: ListPage) -> int | None:
        """The bytes of the items of a list in JSON with what stands between them; None where it
        isn't known ahead: some are stored in another form. O(what changed)."""
        form, media, range_ = answers.form, answers.media, page.range
        if range_ is None or media.format != "json" or media.as_ or not page.elements:
            return None
        sizes = self._sizes.get(form.api_version)
        if sizes is None:
            # Two threads may make one each: the one that is kept counts.
            sizes = self._sizes.setdefault(form.api_version, _sizes(form))
        total = range_.snapshot.tree.aggregate(sizes, range_.start, range_.stop)
        return None if total >= _ODD else total + len(page.elements) - 1

    def compressed(self, answers: Answers, page: ListPage) -> Body | None:
        """A list from what is kept of it, and what has to be compressed now; None if nothing can
        be kept of such a list: selected ones, those of the source, tables, YAML, pretty ones.

        Raises NotAcceptable. O(runs), and the bytes of those that aren't kept.
        """
        form, media, range_ = answers.form, answers.media, page.range
        if range_ is None or media.format == "yaml" or media.as_ == "Table" or media.pretty:
            return None
        name = media.format, media.as_, form.api_version
        kind = self._kinds.get(name)
        if media.format == "json":
            head, foot = form.around(page.meta)
            if kind is None:
                kind = RunKind("json", form.item, b",")
        else:
            items = sum(map(form.entry_length, page.elements))
            head, foot = protobuf_list.around(form, items, page.meta)
            if kind is None:
                kind = RunKind("protobuf", form.entry)
        # Two threads may make one each: the later one counts, and runs are made once more.
        kind = self._kinds.setdefault(name, kind)
        tree = range_.snapshot.tree
        return Body(gzip_list(self._parts, kind, tree, head, foot, range_.start, range_.stop))


def _sizes(form: Form) -> _Sizes:
    """The bytes of an item of a list that can go out as it is stored."""
    begins, less = form.begins, max(0, form.cut - 1)

    def measure(_: bytes, element: Element) -> int:
        value = element.value
        return len(value) - less if value.startswith(begins) else _ODD

    return Aggregate("json_bytes", 0, measure, add)

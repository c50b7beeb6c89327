"""Compression: answers as gzip, by the rules of an API server, lists from runs that are kept.

One Compression for each cache: it knows in which forms the runs of the cache's trees are kept.
"""

from __future__ import annotations

from typing import Final

from btreecache.block import Blocks
from btreecache.encoding import protobuf_list
from btreecache.encoding.answer import Answers
from btreecache.encoding.body import Body
from btreecache.encoding.deflate import RunKind, gzip_chunks, gzip_list
from btreecache.encoding.parts import Parts
from btreecache.reads import ListPage

#: Answers of more bytes are compressed (upstream: 128 KiB).
LEAST_BYTES: Final = 128 << 10

#: What an answer says that is compressed.
HEADERS: Final = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}


def compressed(body: Body) -> Body:
    """Any answer as gzip, made on the fly. Raises as the body's chunks."""
    return Body(gzip_chunks(body))


class Compression:
    """The compressed lists of one cache. Any thread. Runs are kept within the budget of `blocks`.

    A form of lists is kept for good once it was asked for: there are as many as the cache's
    resource has versions, in JSON and in Protobuf, whole and metadata alone.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._parts = Parts(blocks)
        self._kinds: dict[tuple[str, str, str], RunKind] = {}

    def page(self, answers: Answers, page: ListPage) -> Body | None:
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

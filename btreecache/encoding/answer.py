"""Answers: objects, lists and frames in the form that was negotiated. The one place that knows all.

What a MediaType names is put together here from the modules that write it; who sends it (a server,
a command) needs nothing else of this room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from btreecache.codec.base import Unreadable
from btreecache.element import Element
from btreecache.encoding import frames
from btreecache.encoding.body import Body
from btreecache.encoding.form import Form
from btreecache.encoding.json_list import json_list
from btreecache.encoding.media import MediaType
from btreecache.encoding.metadata import MetadataForm
from btreecache.encoding.protobuf_list import protobuf_list
from btreecache.encoding.refusals import NotAcceptable
from btreecache.encoding.renamed import RenamedForm
from btreecache.encoding.table import IncludeObject, table_chunks, table_frame_object
from btreecache.encoding.text import pretty, pretty_chunks, yaml, yaml_list
from btreecache.encoding.values import Values
from btreecache.features import Features
from btreecache.plan import PageMeta
from btreecache.resources import Resource
from btreecache.watch_stream import WatchEvent


def form_of(
    resource: Resource, version: str, media: MediaType, values: Values, *, typed: bool
) -> Form:
    """How the objects of a resource are written. `version`: of the API that was asked.
    `typed`: it is a built-in type."""
    if media.as_.startswith("Partial"):
        return MetadataForm(resource, media.version, values)
    if resource.custom is not None and resource.custom.renamed:
        return RenamedForm(resource, version, values)
    return Form(resource, version, typed, values)


def is_streamed(media: MediaType, features: Features) -> bool:
    """Whether lists in this form are sent while they are made: the gates that say so."""
    return features.streaming_protobuf if media.format == "protobuf" else features.streaming_json


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one request. Immutable.

    clock    seconds since 1970: what ages in tables are counted to
    include  what a row of a Table holds of its object
    """

    form: Form
    media: MediaType
    clock: Callable[[], float]
    include: IncludeObject = "Metadata"

    def object(self, element: Element) -> Body:
        """The answer to a GET. Raises NotAcceptable."""
        form, media = self.form, self.media
        if media.as_ == "PartialObjectMetadataList":
            raise _not_this("PartialObjectMetadataList", "the requested object is not a list")
        if media.format == "protobuf":
            return _whole(form.protobuf(element))
        text = form.text(element)
        if media.as_ == "Table":
            text = self._table_of(text, is_first=True)
        if media.format == "yaml":
            return _whole(_converted(element, text))
        return _whole(pretty(text) if media.pretty else text + b"\n")

    def page(
        self, elements: Sequence[Element], meta: PageMeta, items_bytes: int | None = None
    ) -> Body:
        """The answer to a LIST, streamed in constant memory. `items_bytes`: as json_list. Raises
        NotAcceptable."""
        form, media = self.form, self.media
        if media.as_ == "PartialObjectMetadata":
            raise _not_this("PartialObjectMetadata", "the requested object is a list")
        if media.format == "protobuf":
            return protobuf_list(form, elements, meta)
        if media.format == "yaml":
            return yaml_list(form, elements, meta)
        body = self._table(elements, meta) if media.as_ == "Table" else None
        if body is None:
            body = json_list(form, elements, meta, items_bytes)
        return Body(pretty_chunks(body)) if media.pretty else body

    def _table(self, elements: Sequence[Element], meta: PageMeta) -> Body:
        form = self.form
        rows = ((element, form.text(element)) for element in elements)
        return Body(
            table_chunks(
                form.resource, rows, meta.members(), now_s=self.clock(),
                include_object=self.include, version=self.media.version, api=form.version,
            )
        )  # fmt: skip

    def _table_of(self, text: bytes, *, is_first: bool) -> bytes:
        try:
            return table_frame_object(
                self.form.resource, text, now_s=self.clock(), include_object=self.include,
                version=self.media.version, is_first=is_first, api=self.form.version,
            )  # fmt: skip
        except Unreadable as error:
            raise NotAcceptable(f"no table of this: {error}") from error

    def frame(self, event: WatchEvent, *, is_first: bool) -> bytes:
        """One event of a watch; `is_first`: nothing was sent before it. Raises NotAcceptable."""
        form, media = self.form, self.media
        if media.as_ == "PartialObjectMetadataList":
            raise _not_this("PartialObjectMetadataList", "the requested object is not a list")
        if media.as_ != "Table" or event.error is not None:
            return frames.frame(form, event, media.format)
        if event.element is None:
            text = self._table_of(frames.bookmark_text(form, event), is_first=is_first)
        else:
            text = self._table_of_one(event.element, is_first=is_first)
        return frames.json_frame(event.type, text)

    def _table_of_one(self, element: Element, *, is_first: bool) -> bytes:
        """Remembered for those who watch the same: ages are shown in whole seconds."""
        form, now_s = self.form, int(self.clock())
        what = f"{form.api_version} {self.media.version} {self.include} {is_first} {now_s}"
        found = form.values.frames.get(what, element)
        if found is None:
            found = self._table_of(form.text(element), is_first=is_first)
            form.values.frames.put(what, element, found)
        return found

    def error_frame(self, error: BaseException) -> bytes:
        """The last frame of a watch that failed."""
        return frames.error_frame(error, self.media.format, self.form.values.codec)


def _whole(data: bytes) -> Body:
    return Body([data])


def _converted(element: Element, text: bytes) -> bytes:
    try:
        return yaml(text)
    except Unreadable as error:
        raise NotAcceptable(str(error)) from error


def _not_this(kind: str, but: str) -> NotAcceptable:
    return NotAcceptable(f"you requested {kind}, but {but}")

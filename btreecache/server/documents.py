"""Documents: what is said about the resources of one moment, made once, with its ETag.

Discovery and OpenAPI only change when the resources do, and clients ask for them at every start:
they get them from here, or hear that they have them already (304).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha512
from typing import NamedTuple

from starlette.responses import Response

from btreecache.codec.transcode import protobuf_of
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.media import MediaType
from btreecache.encoding.text import yaml
from btreecache.resources import Resources
from btreecache.server import discovery

#: Of what carries an ETag, as API servers say it: any cache may keep it, and has to ask each time.
CACHED = {"Cache-Control": "public", "Vary": "Accept"}


class Text(NamedTuple):
    """A document as it goes out. `tag`: a hash of it, in any form the same."""

    body: bytes
    tag: str


def written(document: discovery.Document, media: MediaType) -> bytes:
    """A document that was made here, in any form. O(its size)."""
    if media.format == "json":
        return json_bytes(document, indent=2) if media.pretty else json_bytes(document) + b"\n"
    text = json_bytes(document)
    if media.format == "yaml":
        return yaml(text)
    # Two documents are older than apiVersion, and have none in JSON. Their messages do.
    return protobuf_of(
        text if "apiVersion" in document else json_bytes({"apiVersion": "v1"} | document)
    )


class Documents:
    """The documents of these resources. On one event loop; keeps each in the forms asked for."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._kept: dict[tuple[str, MediaType], Text] = {}

    def aggregated(self, media: MediaType, *, core: bool) -> Text:
        """`/api` or `/apis` with all that is below. O(resources) once."""
        groups = [name for name in self.resources.groups() if core == (not name)]
        return self._made(
            "/api" if core else "/apis", media,
            lambda: discovery.aggregated(self.resources, groups, media.version),
        )  # fmt: skip

    def _made(self, path: str, media: MediaType, make: Callable[[], discovery.Document]) -> Text:
        found = self._kept.get((path, media))
        if found is None:
            document = make()
            tag = sha512(json_bytes(document)).hexdigest().upper()
            found = self._kept[path, media] = Text(written(document, media), tag)
        return found


def tagged(text: Text, media: MediaType, if_none_match: str | None) -> Response:
    """A document as an answer; nothing but its headers if the client has it already."""
    headers = CACHED | {"ETag": f'"{text.tag}"'}
    if has(if_none_match, text.tag):
        return Response(None, 304, headers)
    return Response(text.body, 200, headers, media.content_type())


def has(if_none_match: str | None, tag: str) -> bool:
    """Whether If-None-Match names a tag: any of a list of them, weak or not (RFC 9110), or all."""
    if if_none_match is None:
        return False
    named = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return f'"{tag}"' in named or named == {"*"}

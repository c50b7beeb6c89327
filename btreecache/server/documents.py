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
from btreecache.resources import Resource, Resources
from btreecache.server import discovery, openapi

#: Of what carries an ETag, as API servers say it: any cache may keep it, and has to ask each time.
CACHED = {"Cache-Control": "public", "Vary": "Accept"}

IMMUTABLE = CACHED | {"Cache-Control": "public, immutable, max-age=31536000"}


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
    """The documents of these resources. Keeps each in the forms asked for. Any thread: two may make
    the same one.

    before   those of the resources that there were: what hasn't changed is taken from them
    """

    def __init__(self, resources: Resources, build: str, before: Documents | None = None) -> None:
        self.resources = resources
        self._build = build
        self._kept: dict[tuple[str, MediaType], Text] = {}
        self._openapi: dict[tuple[str, tuple[Resource, ...]], Text] = {}
        self._before = before._openapi if before else {}

    def aggregated(self, media: MediaType, *, core: bool) -> Text:
        """`/api` or `/apis` with all that is below. O(resources) once."""
        groups = [name for name in self.resources.groups() if core == (not name)]
        return self._made(
            "/api" if core else "/apis", media,
            lambda: discovery.aggregated(self.resources, groups, media.version),
        )  # fmt: skip

    def openapi_index(self) -> Text:
        """`/openapi/v3`. O(all that is served) once, a tenth of a second or two: in a thread."""
        tags = {
            openapi.path_of(group, version): self.openapi(group, version).tag
            for group, versions in self.resources.groups().items()
            for version in versions
        }
        return self._made("/openapi/v3", MediaType(), lambda: openapi.index(tags))

    def openapi(self, group: str, version: str) -> Text:
        """The document of a group version. O(its types) once, some milliseconds."""
        name = openapi.path_of(group, version), (*self.resources.of(group, version),)
        found = self._openapi.get(name) or self._before.get(name)
        if found is None:
            document = openapi.document(self.resources, group, version, self._build)
            found = _text(document, MediaType())
        self._openapi[name] = found
        return found

    def _made(self, path: str, media: MediaType, make: Callable[[], discovery.Document]) -> Text:
        found = self._kept.get((path, media))
        if found is None:
            found = self._kept[path, media] = _text(make(), media)
        return found


def _text(document: discovery.Document, media: MediaType) -> Text:
    return Text(written(document, media), sha512(json_bytes(document)).hexdigest().upper())


def tagged(
    text: Text, media: MediaType, if_none_match: str | None, *, hashed: bool = False
) -> Response:
    """A document as an answer; nothing but its headers if the client has it already. `hashed`: it
    was asked for by its hash, so it will never be another."""
    headers = (IMMUTABLE if hashed else CACHED) | {"ETag": f'"{text.tag}"'}
    if has(if_none_match, text.tag):
        return Response(None, 304, headers)
    return Response(text.body, 200, headers, media.content_type())


def has(if_none_match: str | None, tag: str) -> bool:
    """Whether If-None-Match names a tag: any of a list of them, weak or not (RFC 9110), or all."""
    if if_none_match is None:
        return False
    named = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return f'"{tag}"' in named or named == {"*"}

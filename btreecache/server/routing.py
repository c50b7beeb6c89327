"""Routing: what the path of a request asks for. Pure: knows which resources there are, no cache.

Paths are those of the Kubernetes API, with or without a slash at the end. Subresources and the old
`/watch/` paths are not served.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from btreecache.errors import BadRequest, quoted
from btreecache.resources import Resource, Resources
from btreecache.server.refusals import UnknownPath


class Page(Enum):
    """What has a path of its own and no parameters."""

    ROOT = ""
    VERSION = "version"
    LIVEZ = "livez"
    READYZ = "readyz"
    HEALTHZ = "healthz"
    API = "api"
    APIS = "apis"
    OPENAPI_V3 = "openapi/v3"
    METRICS = "metrics"
    DEBUG = "debug"


#: Those that say how the server is, in plain text; they answer HEAD too.
HEALTH = frozenset((Page.LIVEZ, Page.READYZ, Page.HEALTHZ))


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a page of HEALTH, which may not have it."""

    page: Page
    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """Discovery: a group and its versions."""

    group: str


@dataclass(frozen=True, slots=True)
class GroupVersion:
    """Discovery: the resources of a group in one version."""

    group: str
    version: str


@dataclass(frozen=True, slots=True)
class OpenApi:
    """The OpenAPI document of a group version."""

    group: str
    version: str


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of one resource: one if there is a `name`, else a collection.

    namespace   "" for all namespaces, and for what has none
    """

    resource: Resource
    version: str
    namespace: str
    name: str

    def prefix(self, root: bytes) -> bytes:
        """The prefix of the collection's keys."""
        prefix = self.resource.prefix(root)
        return prefix + self.namespace.encode() + b"/" if self.namespace else prefix

    def key(self, root: bytes) -> bytes:
        """The key of the one object."""
        return self.resource.key(self.namespace, self.name, root)


Target = Page | Check | Group | GroupVersion | OpenApi | Objects

_PAGES = {page.value: page for page in Page}


def route(path: str, resources: Resources) -> Target:
    """What a decoded path asks for. O(its length).

    Raises UnknownPath; BadRequest for names that can't be a segment of a key.
    """
    inner = path.removeprefix("/").removesuffix("/")
    page = _PAGES.get(inner)
    if page is not None:
        return page
    parts = inner.split("/")
    match parts:
        case ["openapi", "v3", *below] if below:
            return _openapi(below, resources)
        case ["api", version, *rest]:
            group = ""
        case ["apis", group] if group in resources.groups() and group:
            return Group(group)
        case ["apis", group, version, *rest] if group:
            pass
        case [page_name, check] if _PAGES.get(page_name) in HEALTH:
            return Check(_PAGES[page_name], check)
        case _:
            raise UnknownPath
    if not rest:
        if version not in resources.groups().get(group, ()):
            raise UnknownPath
        return GroupVersion(group, version)
    return _objects(group, version, rest, resources)


def _openapi(below: list[str], resources: Resources) -> OpenApi:
    match below:
        case ["api", version]:
            group = ""
        case ["apis", group, version] if group:
            pass
        case _:
            raise UnknownPath
    if version not in resources.groups().get(group, ()):
        raise UnknownPath
    return OpenApi(group, version)


def _objects(group: str, version: str, rest: list[str], resources: Resources) -> Objects:
    match rest:
        case ["namespaces", namespace, plural]:
            name, inside = "", True
        case ["namespaces", namespace, plural, name]:
            inside = True
        case [plural]:
            namespace, name, inside = "", "", False
        case [plural, name]:
            namespace, inside = "", False
        case _:
            raise UnknownPath
    resource = resources.get(group, version, plural)
    if resource is None or not all(rest) or (inside and not resource.namespaced):
        raise UnknownPath
    if name and not inside and resource.namespaced:
        raise UnknownPath
    _check_segment("Namespace", namespace)
    _check_segment("Name", name)
    return Objects(resource, version, namespace, name)


def _check_segment(what: str, text: str) -> None:
    """As the API server's registry checks names in paths. Raises BadRequest."""
    problems = []
    if text in (".", ".."):
        problems.append(f"may not be '{text}'")
    if "%" in text:
        problems.append("may not contain '%'")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        problems.append("must be UTF-8")
    if problems:
        raise BadRequest(f"{what} parameter invalid: {quoted(text)}: {';'.join(problems)}")

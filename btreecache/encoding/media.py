"""Content negotiation: which form of an answer a client gets. Pure.

An Accept header is a list of clauses, the best first; each may ask for the object as something else
(`as=Table;g=meta.k8s.io;v=v1`). A clause that asks for what there isn't is passed over, as API
servers do: who asks for a Table puts plain JSON behind it, and who takes nothing else is refused,
because another form would not be understood.

Of clauses with the same q the more specific one counts first, then the earlier. What is no clause,
no quality or no parameter that we know is left out, as hostile as it may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from btreecache.encoding.refusals import only_accepted

Format = Literal["json", "yaml", "protobuf"]

#: What an object is answered as; "" is the object itself.
As = Literal[
    "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList"
]

#: Versions of the group that it is of: meta.k8s.io the first two, apidiscovery.k8s.io the others.
MetaVersion = Literal["v1", "v1beta1", "v2", "v2beta1"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "yaml": "application/yaml",
    "protobuf": "application/vnd.kubernetes.protobuf",
}

_FORMATS: dict[str, Format] = {name: form for form, name in MEDIA_TYPES.items()}

_META: dict[str, MetaVersion] = {"v1": "v1", "v1beta1": "v1beta1"}
_DISCOVERY: dict[str, MetaVersion] = {"v2": "v2", "v2beta1": "v2beta1"}

#: By `g` and `as` of a clause: what it asks for, and the versions that there are of it.
_AS: dict[tuple[str, str], tuple[As, dict[str, MetaVersion]]] = {
    ("meta.k8s.io", "Table"): ("Table", _META),
    ("meta.k8s.io", "PartialObjectMetadata"): ("PartialObjectMetadata", _META),
    ("meta.k8s.io", "PartialObjectMetadataList"): ("PartialObjectMetadataList", _META),
    ("apidiscovery.k8s.io", "APIGroupDiscoveryList"): ("APIGroupDiscoveryList", _DISCOVERY),
}

#: Who gets readable JSON without asking: people at a terminal or in a browser (upstream's list).
PRETTY_AGENTS = ("curl", "Wget", "Mozilla/5.0")

#: What Go's strconv.ParseBool takes for true; anything else in `pretty` is false.
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))

_QUALITY = re.compile(r"(?=[.\d])\d{0,10}(?:\.\d{0,30})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaType:
    """The form of an answer.

    as_      the object as something else; "" as what it is
    version  of the group of what it is answered as
    pretty   JSON over several lines, for people
    """

    format: Format = "json"
    as_: As = ""
    version: MetaVersion = "v1"
    pretty: bool = False

    def content_type(self, *, watch: bool = False) -> str:
        """The Content-Type header. Only Protobuf says that it is a stream, and only discovery what
        it is answered as (upstream)."""
        more = ";stream=watch" if watch and self.format == "protobuf" else ""
        if self.as_ == "APIGroupDiscoveryList":
            more = f";g=apidiscovery.k8s.io;v={self.version};as={self.as_}"
        return MEDIA_TYPES[self.format] + more


@dataclass(frozen=True, slots=True)
class Offer:
    """The forms that one thing can be answered in.

    formats        as what it is, the default first
    metadata       formats of PartialObjectMetadata(List)
    table          formats of Table
    discovery      formats of APIGroupDiscoveryList
    watch          whether it is a stream of frames
    """

    formats: tuple[Format, ...] = ("json",)
    metadata: tuple[Format, ...] = ()
    table: tuple[Format, ...] = ()
    discovery: tuple[Format, ...] = ()
    watch: bool = False

    def has(self, form: Format, as_: As) -> bool:
        match as_:
            case "":
                return form in self.formats
            case "Table":
                return form in self.table
            case "APIGroupDiscoveryList":
                return form in self.discovery
            case _:
                return form in self.metadata

    def media_types(self) -> Iterator[str]:
        """As a refusal lists them."""
        stream = ";stream=watch" if self.watch else ""
        return (MEDIA_TYPES[form] + stream for form in self.formats)


#: Documents that are no objects: what is one, discovery, and where its aggregated form is.
TEXTS = Offer()
DOCUMENTS = Offer(("json", "yaml", "protobuf"))
DISCOVERY = Offer(("json", "yaml", "protobuf"), discovery=("json", "yaml", "protobuf"))

#: Objects of built-in types, and watches of them. Upstream makes a Table in YAML too; a client that
#: asks for one hasn't been seen.
TYPED = Offer(("json", "yaml", "protobuf"), ("json", "yaml", "protobuf"), ("json",))
TYPED_WATCH = Offer(("json", "protobuf"), ("json", "protobuf"), ("json",), watch=True)

#: Custom resources have no Protobuf, but their metadata has.
CUSTOM = Offer(("json", "yaml"), ("json", "yaml", "protobuf"), ("json",))
CUSTOM_WATCH = Offer(("json",), ("json", "protobuf"), ("json",), watch=True)


def offer(*, typed: bool, watch: bool) -> Offer:
    """What there is of objects."""
    if typed:
        return TYPED_WATCH if watch else TYPED
    return CUSTOM_WATCH if watch else CUSTOM


class _Clause(NamedTuple):
    type: str
    subtype: str
    quality: float
    parameters: dict[str, str]


def negotiate(accept: str | None, offered: Offer) -> MediaType:
    """The best form that an Accept header takes; None or an empty one takes the default.

    `pretty` is only what the clause says: see `is_pretty`. O(header * log(clauses)). Raises
    NotAcceptable with an API server's words.
    """
    if not accept:
        return MediaType(offered.formats[0])
    for clause in _clauses(accept):
        found = _taken(clause, offered)
        if found is not None:
            return found
    raise only_accepted(offered.media_types())


def _taken(clause: _Clause, offered: Offer) -> MediaType | None:
    """What a clause gets; None if it asks for what there isn't."""
    parameters = clause.parameters
    as_, version = _answered_as(parameters)
    if version is None:
        return None
    if "stream" in parameters and parameters["stream"] != "watch":
        return None
    for form in _FORMATS.values():
        if _matches(clause, MEDIA_TYPES[form]) and offered.has(form, as_):
            is_pretty = form == "json" and parameters.get("pretty") == "1"
            return MediaType(form, as_, version, is_pretty)
    return None


def _answered_as(parameters: dict[str, str]) -> tuple[As, MetaVersion | None]:
    """What a clause asks for and in which version; None: in one that there isn't."""
    asked = parameters.get("as", "")
    if not asked:
        return "", "v1"
    as_, versions = _AS.get((parameters.get("g", ""), asked), ("", {}))
    return as_, versions.get(parameters.get("v", ""))


def _matches(clause: _Clause, media_type: str) -> bool:
    main, _, sub = media_type.partition("/")
    return clause.type in ("*", main) and clause.subtype in ("*", sub)


def _clauses(accept: str) -> list[_Clause]:
    """The clauses of a header, those that count first first; excluded ones (q=0) left out."""
    found = []
    for text in accept.split(","):
        media_type, *rest = text.split(";")
        main, slash, sub = media_type.strip().lower().partition("/")
        main, sub = main.strip(), sub.strip()
        if not slash and main == "*":
            sub = "*"
        if not main or not sub or "/" in sub or (main == "*" and sub != "*"):
            continue
        parameters: dict[str, str] = {}
        for parameter in rest:
            name, _, value = parameter.partition("=")
            parameters.setdefault(name.strip().lower(), value.strip().strip('"'))
        clause = _Clause(main, sub, _quality(parameters.pop("q", "")), parameters)
        if clause.quality > 0:
            found.append(clause)
    found.sort(key=lambda one: (-one.quality, one.type == "*", one.subtype == "*"))
    return found


def _quality(text: str) -> float:
    """A weight from 0 to 1; one that is no number is 1, as upstream takes it."""
    if not text or _QUALITY.fullmatch(text) is None or text == ".":
        return 1.0
    return min(1.0, float(text))


def is_pretty(media: MediaType, query: str | None, user_agent: str | None) -> bool:
    """Whether an answer is written for people: the clause says so, else the query parameter
    `pretty` decides if it isn't empty, else who asks. Only JSON is."""
    if media.format != "json":
        return False
    if media.pretty:
        return True
    if query:
        return query in _TRUE
    return (user_agent or "").startswith(PRETTY_AGENTS)


def for_people(media: MediaType, query: str | None, user_agent: str | None) -> MediaType:
    """The form with `pretty` as `is_pretty` has it."""
    return replace(media, pretty=is_pretty(media, query, user_agent))

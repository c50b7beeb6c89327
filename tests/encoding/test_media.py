"""Content negotiation: what clients send, and what nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.encoding.media import (
    CUSTOM,
    CUSTOM_WATCH,
    DOCUMENTS,
    TEXTS,
    TYPED,
    TYPED_WATCH,
    MediaType,
    Offer,
    for_people,
    is_pretty,
    negotiate,
    offer,
)
from btreecache.encoding.media import DISCOVERY as AGGREGATED
from btreecache.encoding.refusals import NotAcceptable

JSON, YAML, PROTOBUF = MediaType("json"), MediaType("yaml"), MediaType("protobuf")
TABLE = MediaType(as_="Table")
PARTIALS = MediaType("protobuf", "PartialObjectMetadataList")
G = ";g=meta.k8s.io;v=v1"
KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
INFORMER = (
    f"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList{G},"
    f"application/json;as=PartialObjectMetadataList{G},application/json"
)
DISCOVERY = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
PB = "application/vnd.kubernetes.protobuf"


@pytest.mark.parametrize(
    ("accept", "offered", "expected"),
    [
        # What real clients send.
        (None, TYPED, JSON),
        ("", TYPED, JSON),
        ("*/*", TYPED, JSON),
        ("application/json, */*", TYPED, JSON),
        ("application/json", CUSTOM, JSON),
        (KUBECTL, TYPED, TABLE),
        (KUBECTL, CUSTOM_WATCH, TABLE),
        (KUBECTL, DOCUMENTS, JSON),
        (f"{PB},application/json", TYPED, PROTOBUF),
        (f"{PB},application/json", CUSTOM, JSON),
        (f"{PB};stream=watch,application/json;stream=watch", TYPED_WATCH, PROTOBUF),
        ("application/json;stream=watch", TYPED_WATCH, JSON),
        (INFORMER, TYPED, PARTIALS),
        (INFORMER, CUSTOM, PARTIALS),
        (DISCOVERY, DOCUMENTS, JSON),
        (DISCOVERY, AGGREGATED, MediaType(as_="APIGroupDiscoveryList", version="v2")),
        (DISCOVERY.partition(",")[2], AGGREGATED,
         MediaType(as_="APIGroupDiscoveryList", version="v2beta1")),
        (DISCOVERY.replace("apidiscovery", "meta"), AGGREGATED, JSON),
        (f"application/json;as=Table{G},application/yaml", AGGREGATED, YAML),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf,*/*", DOCUMENTS, JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TYPED, JSON),
        # Wildcards: the first that there is; what is more specific first.
        ("*", TYPED, JSON),
        ("application/*", CUSTOM, JSON),
        (f"*/*,{PB}", TYPED, PROTOBUF),
        (f"application/*,{PB}", TYPED, PROTOBUF),
        ("*/*, application/*;q=0.5", TYPED, JSON),
        # Quality.
        (f"application/json;q=0.5,{PB};q=0.9", TYPED, PROTOBUF),
        (f"application/json;q=1.0,{PB};q=0.9", TYPED, JSON),
        ("application/json;q=0.1,application/yaml;q=0.2", CUSTOM, YAML),
        (f"{PB};q=0,application/json;q=0.1", TYPED, JSON),
        (f"{PB};q=0.000,*/*;q=0.1", TYPED, JSON),
        ("application/yaml;q=nonsense,application/json;q=0.9", TYPED, YAML),
        ("application/yaml;q=nan,application/json;q=0.9", TYPED, YAML),
        ("application/yaml;q=7,application/json", TYPED, YAML),
        ("application/yaml;q=-1,application/json", TYPED, YAML),
        ("application/yaml;q=.5,application/json;q=.6", TYPED, JSON),
        # Other forms.
        ("application/yaml", TYPED, YAML),
        (f"application/yaml;as=Table{G},application/json", TYPED, JSON),
        (f"{PB};as=Table{G},application/json", TYPED, JSON),
        (f"*/*;as=Table{G}", TYPED, TABLE),
        (f"application/json;as=PartialObjectMetadata{G}", TYPED,
         MediaType(as_="PartialObjectMetadata")),
        ("application/json;as=Table;g=meta.k8s.io;v=v1beta1", TYPED,
         MediaType(as_="Table", version="v1beta1")),
        (f"application/yaml;as=PartialObjectMetadataList{G}", TYPED,
         MediaType("yaml", "PartialObjectMetadataList")),
        ("application/yaml,application/json", TYPED_WATCH, JSON),
        # What `as` asks for must be there, whole.
        ("application/json;as=Table,application/json", TYPED, JSON),
        ("application/json;as=Table;v=v1,application/json;as=Table;g=meta.k8s.io,*/*", TYPED, JSON),
        ("application/json;as=Table;g=meta.k8s.io;v=v2,application/yaml", TYPED, YAML),
        ("application/json;as=Table;g=other;v=v1,application/yaml", TYPED, YAML),
        ("application/json;as=Nope;g=meta.k8s.io;v=v1,application/yaml", TYPED, YAML),
        ("application/json;as=table;g=meta.k8s.io;v=v1,application/yaml", TYPED, YAML),
        ("application/json;as=", TYPED, JSON),
        (f"application/json;as{G}", TYPED, JSON),
        # Pretty.
        ("application/json;pretty=1", TYPED, MediaType(pretty=True)),
        ("application/json;pretty=true", TYPED, JSON),
        ("application/yaml;pretty=1", TYPED, YAML),
        # As people write them.
        (" Application/JSON ; Q=0.5 , application/yaml;q=0.4", TYPED, JSON),
        ('application/json;as="Table";g="meta.k8s.io";v="v1"', TYPED, TABLE),
        ("application/json;charset=utf-8;profile=x", TYPED, JSON),
        ("application/json;stream=other,application/yaml", TYPED, YAML),
        # Hostile ones.
        (",,,;;;,=,/,a/b/c,application/json", TYPED, JSON),
        ("application/json;;;=;q", TYPED, JSON),
        ("*/json,application/yaml", TYPED, YAML),
        ("application/json;q=" + "9" * 100, TYPED, JSON),
        ("application/json;as=Table;as=Nope" + G, TYPED, TABLE),
        ("x/y," * 2_000 + "application/yaml", TYPED, YAML),
        ("application/json\x00,application/yaml", TYPED, YAML),
    ],
)  # fmt: skip
def test_the_best_form(accept: str | None, offered: Offer, expected: MediaType) -> None:
    assert negotiate(accept, offered) == expected


@pytest.mark.parametrize(
    ("accept", "offered", "listed"),
    [
        ("text/html", TYPED, f"application/json, application/yaml, {PB}"),
        ("text/html", CUSTOM, "application/json, application/yaml"),
        ("text/html", TYPED_WATCH, f"application/json;stream=watch, {PB};stream=watch"),
        ("application/yaml", CUSTOM_WATCH, "application/json;stream=watch"),
        (PB, CUSTOM, "application/json, application/yaml"),
        (f"application/json;as=Table{G}", TEXTS, "application/json"),
        ("application/json;q=0", TEXTS, "application/json"),
        ("*/*;q=0", TEXTS, "application/json"),
        (",", TEXTS, "application/json"),
        ("application", TEXTS, "application/json"),
        (f"application/json;as=Table{G};q=0.0,text/html", TYPED,
         f"application/json, application/yaml, {PB}"),
        ("application/cbor", CUSTOM, "application/json, application/yaml"),
    ],
)  # fmt: skip
def test_nothing_that_is_taken(accept: str, offered: Offer, listed: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        negotiate(accept, offered)
    assert str(refused.value) == f"only the following media types are accepted: {listed}"


@given(st.text(alphabet=',;=/*q.0123as "jnoapplication+yml', max_size=60))
def test_any_header_is_answered_or_refused(accept: str) -> None:
    for offered in (TYPED, CUSTOM_WATCH):
        try:
            found = negotiate(accept, offered)
        except NotAcceptable:
            continue
        assert offered.has(found.format, found.as_)


def test_content_types() -> None:
    assert PROTOBUF.content_type() == PB
    assert PROTOBUF.content_type(watch=True) == f"{PB};stream=watch"
    assert JSON.content_type(watch=True) == TABLE.content_type() == "application/json"
    assert YAML.content_type() == "application/yaml"
    assert [offer(typed=True, watch=False), offer(typed=False, watch=True)] == [TYPED, CUSTOM_WATCH]
    assert [offer(typed=True, watch=True), offer(typed=False, watch=False)] == [TYPED_WATCH, CUSTOM]


@pytest.mark.parametrize(
    ("clause", "query", "agent", "expected"),
    [
        (False, None, None, False),
        (False, None, "kubectl/v1.36.0", False),
        (False, None, "curl/8.0", True),
        (False, None, "Wget/1.21", True),
        (False, None, "Mozilla/5.0 (X11)", True),
        (False, None, "Mozilla/4.0", False),
        (False, None, "libcurl", False),
        (False, "", "curl/8.0", True),
        (False, "false", "curl/8.0", False),
        (False, "nonsense", "curl/8.0", False),
        (False, "0", "curl/8.0", False),
        (False, "true", None, True),
        (False, "1", None, True),
        (False, "yes", None, False),
        (True, "false", None, True),
    ],
)
def test_who_gets_readable_json(
    clause: bool, query: str | None, agent: str | None, expected: bool
) -> None:
    assert is_pretty(MediaType(pretty=clause), query, agent) is expected
    assert for_people(MediaType(as_="Table", pretty=clause), query, agent) == MediaType(
        as_="Table", pretty=expected
    )
    for other in (YAML, PROTOBUF):
        assert for_people(other, query, agent) == other

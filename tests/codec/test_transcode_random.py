"""Random objects of every kind, both ways, against the protobuf runtime and Go's rules."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from btreecache.codec.schema import schema
from btreecache.codec.transcode import UnknownFields, json_of, protobuf_of
from tests.schema.oracle import Oracle, RandomObjects, envelope, text_of

SEED = 6
OBJECTS = 3

KINDS = sorted(name for name in schema().names() if schema().message(name).is_kind)
SECTIONS = sorted({name.rpartition(".")[0] for name in KINDS})


@cache
def oracle() -> Oracle:
    return Oracle(schema())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_kind_both_ways(section: str) -> None:
    objects = RandomObjects(oracle(), Random(f"{SEED} {section}"))
    for name in KINDS:
        api_version, _, kind = name.rpartition(".")
        if api_version != section:
            continue
        for index in range(OBJECTS):
            message = oracle().new(name)
            objects.fill(name, message)
            stored = envelope(api_version, kind, message.SerializeToString(deterministic=True))
            document = {"kind": kind, "apiVersion": api_version} | oracle().document(name, message)
            unknown = UnknownFields()
            text = json_of(stored, unknown)
            where = f"seed {SEED}, {name}, object {index}"
            assert with_kinds(document, name) == text, where
            assert protobuf_of(text, unknown) == stored, where
            assert unknown.count == 0, where


def with_kinds(document: dict[str, object], name: str) -> bytes:
    """The text of a document, StatefulSets' claims with the kind that the API shows them with."""
    head = {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}

    def shown(value: object) -> object:
        if isinstance(value, dict):
            return {
                member: [head | shown(claim) for claim in item]  # type: ignore[operator]
                if member == "volumeClaimTemplates" and item
                else shown(item)
                for member, item in value.items()
            }
        return [shown(item) for item in value] if isinstance(value, list) else value

    return text_of(shown(document))


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_message_is_the_zero_value(name: str) -> None:
    api_version, _, kind = name.rpartition(".")
    document = {"kind": kind, "apiVersion": api_version}
    document |= oracle().document(name, oracle().new(name))
    text = json_of(envelope(api_version, kind, b""))
    # A quantity that is not there is 0, a duration 0s: what the runtime calls "" and 0.
    assert text.replace(b'"0"', b'""') == text_of(document).replace(b'"0"', b'""')
    assert json_of(protobuf_of(text)) == text

"""Random lists, from one seed: objects of a built-in type and of a custom one, with what is odd."""

from __future__ import annotations

import json
from random import Random
from typing import Any, NamedTuple

from btreecache.codec import Kubernetes
from btreecache.codec.transcode import protobuf_of
from btreecache.element import Element
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN, Resource, parse_resource
from tests.encoding.oracle import json_text

CODEC = Kubernetes()

_CONFIG_MAPS = BUILT_IN.get("", "v1", "configmaps")
assert _CONFIG_MAPS is not None
CONFIG_MAPS: Resource = _CONFIG_MAPS
WIDGETS: Resource = parse_resource("g.io/v1/widgets:Widget:namespaced")

#: Strings that encoders get wrong.
ODD = (
    "", "a", "é", "<&>", "\u2028", "\U0001f600", "\\", '"', "\n", "\t", "\x00", "{", "},{",
    "k8s\x00",
    '"items":[', ',"kind":"ConfigMap"', "yes", "1e3", "null", "- a", "a: b", "# c", " x ", "a\nb\n",
)  # fmt: skip


class Drawn(NamedTuple):
    """objects: as served, kind and apiVersion first. elements: of them, as a cache has them."""

    resource: Resource
    typed: bool
    meta: PageMeta
    objects: list[dict[str, Any]]
    elements: list[Element]

    @property
    def list_meta(self) -> dict[str, Any]:
        found: dict[str, Any] = {"resourceVersion": self.meta.resource_version}
        if self.meta.continue_token:
            found["continue"] = self.meta.continue_token
        if self.meta.remaining_item_count is not None:
            found["remainingItemCount"] = self.meta.remaining_item_count
        return found


def draw(rng: Random) -> Drawn:
    """A list of 0 to 12 objects, some so large that it takes several chunks."""
    typed = rng.random() < 0.6
    resource = CONFIG_MAPS if typed else WIDGETS
    length = rng.choice((0, 1, 2, 3, 12))
    meta = PageMeta(
        str(rng.randrange(1, 1 << 60)),
        rng.choice(("", "abc", "<&>")),
        rng.choice((None, 0, 1, 300)),
    )
    objects, elements = [], []
    for number in range(length):
        one = _config_map(rng, number) if typed else _widget(rng, number)
        revision = rng.randrange(1, 1 << 50)
        text = json_text(one)
        as_protobuf = typed and rng.random() < 0.5
        value = protobuf_of(text) if as_protobuf else _written(rng, one)
        made = CODEC.decode(Element(b"/registry/x/%d" % number, value, revision, 1, 1))
        assert made.problem is None, made.problem
        one["metadata"]["resourceVersion"] = str(revision)
        objects.append(_ordered(one) if typed else one)
        elements.append(made)
    return Drawn(resource, typed, meta, objects, elements)


def _ordered(one: dict[str, Any]) -> dict[str, Any]:
    """Metadata as a struct has it: protobuf has no other order."""
    names = ("name", "namespace", "resourceVersion", "labels", "annotations")
    metadata = one["metadata"]
    return one | {"metadata": {name: metadata[name] for name in names if name in metadata}}


def _written(rng: Random, one: dict[str, Any]) -> bytes:
    """JSON as others than API servers store it, too."""
    style = rng.randrange(4)
    if style == 0:
        return json_text(one)
    if style == 1:
        return json_text(dict(sorted(one.items())))
    if style == 2:
        return json_text({name: one[name] for name in sorted(one, reverse=True)})
    return (" " + json.dumps(one, indent=1) + "\r\n").encode()


def _meta(rng: Random, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": f"x{number}", "namespace": "a"}
    if rng.random() < 0.5:
        found["labels"] = {f"l{i}": rng.choice(("", "a", "b")) for i in range(rng.randrange(1, 3))}
    if rng.random() < 0.5:
        found["annotations"] = {f"n{i}": rng.choice(ODD) for i in range(rng.randrange(1, 3))}
    return found


def _config_map(rng: Random, number: int) -> dict[str, Any]:
    data = {f"d{i}": rng.choice(ODD) for i in range(rng.randrange(1, 4))}
    if rng.random() < 0.2:
        data["large"] = rng.choice("abc<") * rng.choice((60_000, 300_000))
    return {
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": _meta(rng, number),
        "data": dict(sorted(data.items())),
    }  # fmt: skip


def _widget(rng: Random, number: int) -> dict[str, Any]:
    return {
        "kind": "Widget", "apiVersion": "g.io/v1", "metadata": _meta(rng, number),
        "spec": _value(rng, 3),
    }  # fmt: skip


def _value(rng: Random, depth: int) -> Any:
    choice = rng.randrange(9 if depth else 6)
    if choice < 2:
        return rng.choice(ODD)
    if choice < 6:
        return rng.choice((None, True, False, 0, -1, 1 << 53, 1.1, -2.5e-7, [], {}))
    if choice == 6:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(ODD): _value(rng, depth - 1) for _ in range(rng.randrange(4))}

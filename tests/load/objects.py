"""The objects under load: what is written, and what a client has to find of it.

Each has a mark that is written once only, so that an answer tells which write it shows.
"""

from __future__ import annotations

import json
from hashlib import blake2b

import msgspec

PODS = "/api/v1/pods"
DIGEST_MODULUS = 1 << 64


def key(namespace: str, name: str) -> bytes:
    return f"/registry/pods/{namespace}/{name}".encode()


def value(namespace: str, name: str, mark: int, size: int) -> bytes:
    """A pod of about `size` bytes, as an API server that stores JSON does."""
    metadata = {"name": name, "namespace": namespace, "labels": {"mark": str(mark)}}
    document = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": ""}}
    text = json.dumps(document, separators=(",", ":"))
    fill = f"{mark:09}" * (max(0, size - len(text)) // 9)
    document["spec"] = {"nodeName": fill}
    return json.dumps(document, separators=(",", ":")).encode()


class Metadata(msgspec.Struct):
    name: str
    namespace: str
    resourceVersion: str
    labels: dict[str, str]


class Pod(msgspec.Struct):
    metadata: Metadata

    @property
    def mark(self) -> int:
        return int(self.metadata.labels["mark"])


class ListMetadata(msgspec.Struct, rename={"token": "continue"}):
    resourceVersion: str
    token: str = ""


class PodList(msgspec.Struct):
    metadata: ListMetadata
    items: list[Pod]


class Frame(msgspec.Struct):
    type: str
    object: msgspec.Raw


def digest(namespace: str, name: str, revision: int, mark: int) -> int:
    """Of one object. Those of a set are summed up, modulo DIGEST_MODULUS."""
    text = f"{namespace}/{name} {revision} {mark}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest())

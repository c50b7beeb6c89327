"""The objects that the traffic writes, resource by resource."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.apiservers.record import Object

NAMESPACES = ("blue", "red")
_IMAGE = "example.com/image:1"


@dataclass(frozen=True)
class Resource:
    """`path`: of the group and version. `fill`: what an object holds beside its metadata, changed
    by each update."""

    path: str
    plural: str
    kind: str
    fill: Callable[[Random, Object], Object]
    namespaces: tuple[str, ...] = NAMESPACES
    cached: bool = True

    @property
    def api_version(self) -> str:
        return self.path.removeprefix("/apis/").removeprefix("/api/")

    def url(self, namespace: str = "", name: str = "") -> str:
        scope = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.path}{scope}/{self.plural}{'/' if name else ''}{name}"

    def new(self, rng: Random, namespace: str, name: str) -> Object:
        metadata: Object = {"name": name, "labels": {"parity": str(rng.randrange(2))}}
        if namespace:
            metadata["namespace"] = namespace
        head = {"kind": self.kind, "apiVersion": self.api_version, "metadata": metadata}
        return {**head, **self.fill(rng, {})}

    def changed(self, rng: Random, thing: Object) -> Object:
        """The object with new contents; its resourceVersion stays, so the update may conflict."""
        other = {"kind": self.kind, "apiVersion": self.api_version, **deepcopy(thing)}
        other["metadata"]["labels"] = {"parity": str(rng.randrange(2))}
        other["metadata"]["annotations"] = {"example.com/draw": str(rng.getrandbits(40))}
        return {**other, **self.fill(rng, other)}


def _text(rng: Random) -> str:
    """Mostly small, now and then 60 kB."""
    size = 60_000 if rng.random() < 0.02 else rng.randrange(1, 800)
    return rng.choice('aé\n"x') * size


def _data(rng: Random, _: Object) -> Object:
    return {"data": {f"key{index}": _text(rng) for index in range(rng.randrange(1, 4))}}


def _secret(rng: Random, _: Object) -> Object:
    return {"data": {"token": "QUJD" * rng.randrange(1, 300)}}


def _pod(_: Random, before: Object) -> Object:
    # Hardly anything of a pod may change; its labels and annotations do.
    if "spec" in before:
        return {}
    return {"spec": {"containers": [{"name": "main", "image": _IMAGE}]}}


def _service(rng: Random, before: Object) -> Object:
    spec = {**before.get("spec", {}), "ports": [{"port": rng.randrange(1, 9000), "name": "http"}]}
    return {"spec": {**spec, "selector": {"app": str(rng.randrange(5))}}}


def _deployment(rng: Random, before: Object) -> Object:
    if "spec" in before:
        return {"spec": {**before["spec"], "replicas": rng.randrange(9)}}
    labels = {"app": "a"}
    pod = {"containers": [{"name": "main", "image": _IMAGE}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {"spec": {"selector": {"matchLabels": labels}, "template": template}}


def _lease(rng: Random, _: Object) -> Object:
    return {"spec": {"holderIdentity": str(rng.random()), "leaseDurationSeconds": 15}}


def _widget(rng: Random, _: Object) -> Object:
    size: Any = rng.randrange(-5, 10**15)
    return {"spec": {"size": size, "text": _text(rng), "parts": [rng.random(), None, {"é": ""}]}}


BUILT_IN = (
    Resource("/api/v1", "configmaps", "ConfigMap", _data),
    Resource("/api/v1", "secrets", "Secret", _secret, cached=False),
    Resource("/api/v1", "pods", "Pod", _pod),
    Resource("/api/v1", "services", "Service", _service),
    Resource("/apis/apps/v1", "deployments", "Deployment", _deployment),
    Resource("/apis/coordination.k8s.io/v1", "leases", "Lease", _lease),
)
CUSTOM = (
    Resource("/apis/example.com/v1", "widgets", "Widget", _widget),
    Resource("/apis/example.com/v1", "gadgets", "Gadget", _widget, namespaces=("",)),
)
DEFINITIONS = Resource(
    "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition",
    lambda *_: {}, namespaces=("",),
)  # fmt: skip


def definition(resource: Resource) -> Object:
    """The CustomResourceDefinition of a resource; what its objects hold is free."""
    group, version = resource.api_version.split("/")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "kind": DEFINITIONS.kind,
        "apiVersion": DEFINITIONS.api_version,
        "metadata": {"name": f"{resource.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if resource.namespaces[0] else "Cluster",
            "names": {"plural": resource.plural, "kind": resource.kind},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def passing_resource(plural: str) -> Resource:
    """A custom resource that comes and goes with its definition."""
    return Resource("/apis/passing.example.com/v1", plural, plural.title(), _widget)

"""The fields of each Kubernetes resource that a field selector may name, as facts.

Each field says where its value stands in the stored JSON and how the API server makes a string of
it (its `ToSelectableFields`), defaults included, since the server fills them in when it decodes.
An unsupported name is BadRequest in the words of the resource's own conversion function.
Everything here is immutable; a value costs O(depth of its path).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from types import MappingProxyType

from btreecache.errors import BadRequest, quoted

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A selectable field: the first of `paths` with a non-empty value of its type, else `default`.

    `kind` is the JSON type expected there: `string`, `integer`, `boolean`, or `any` of them.
    No paths: the API server takes the name and indexes nothing under it, so it is always empty.
    """

    name: str
    paths: tuple[Path, ...]
    default: str = ""
    kind: str = "string"

    def value(self, obj: object) -> str:
        """The field's string in a decoded JSON object; a value of another type is no value."""
        for path in self.paths:
            text = _text(_at(obj, path), self.kind)
            if text:
                return text
        return self.default


@dataclass(frozen=True, slots=True)
class ResourceFields:
    """The fields of one resource, `aliases` from names as asked to names as indexed."""

    fields: tuple[Field, ...]
    aliases: Mapping[str, str] = attribute(default_factory=lambda: MappingProxyType({}))
    unsupported: Callable[[str], str] = lambda name: f"field label not supported: {name}"

    def convert(self, name: str) -> str:
        """The indexed name of a field as a client names it, or BadRequest. For `transform`."""
        if name in self.aliases:
            return self.aliases[name]
        if any(one.name == name for one in self.fields):
            return name
        raise BadRequest(self.unsupported(name))

    def values(self, obj: object) -> tuple[str, ...]:
        """The strings of all fields, in their order, of a decoded JSON object."""
        return tuple(one.value(obj) for one in self.fields)


def _dotted(name: str, default: str = "", kind: str = "string") -> Field:
    """A field whose name is its path."""
    return Field(name, (tuple(name.split(".")),), default, kind)


NAME = _dotted("metadata.name")
NAMESPACE = _dotted("metadata.namespace")

#: Resources without a conversion function of their own, cluster-scoped ones too.
DEFAULT_FIELDS = ResourceFields(
    (NAME, NAMESPACE),
    unsupported=lambda name: (
        f'{quoted(name)} is not a known field selector: only "metadata.name", "metadata.namespace"'
    ),
)

_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_FIELDS = (
    NAME,
    NAMESPACE,
    *(_dotted(f"involvedObject.{part}") for part in _REFERENCE),
    _dotted("reason"),
    _dotted("reportingComponent"),
    Field("source", (("source", "component"), ("reportingComponent",))),
    _dotted("type"),
)


class _Renamed(ResourceFields):
    """Only the aliases may be asked for: names that the group's own version of a type knows."""

    __slots__ = ()

    def convert(self, name: str) -> str:
        if name in self.aliases:
            return self.aliases[name]
        raise BadRequest(self.unsupported(name))


#: (group, resource) -> fields, of every built-in type that has more than the default two, or fewer.
FIELDS: Mapping[tuple[str, str], ResourceFields] = MappingProxyType(
    {
        ("", "pods"): ResourceFields(
            (
                NAME,
                NAMESPACE,
                _dotted("spec.nodeName"),
                _dotted("spec.restartPolicy", "Always"),
                _dotted("spec.schedulerName", "default-scheduler"),
                # `serviceAccount` is the deprecated spelling that old objects may carry alone.
                Field(
                    "spec.serviceAccountName",
                    (("spec", "serviceAccountName"), ("spec", "serviceAccount")),
                ),
                _dotted("spec.hostNetwork", "false", "boolean"),
                _dotted("status.phase"),
                Field("status.podIP", (("status", "podIP"), ("status", "podIPs", 0, "ip"))),
                Field("status.podIPs", ()),
                _dotted("status.nominatedNodeName"),
            ),
            MappingProxyType({"spec.host": "spec.nodeName"}),
        ),
        ("", "nodes"): ResourceFields((NAME, _dotted("spec.unschedulable", "false", "boolean"))),
        ("", "namespaces"): ResourceFields((NAME, _dotted("status.phase", "Active"))),
        ("", "secrets"): ResourceFields((NAME, NAMESPACE, _dotted("type", "Opaque"))),
        ("", "services"): ResourceFields(
            (NAME, NAMESPACE, _dotted("spec.clusterIP"), _dotted("spec.type", "ClusterIP"))
        ),
        ("", "replicationcontrollers"): ResourceFields(
            (NAME, NAMESPACE, _dotted("status.replicas", "0", "integer"))
        ),
        ("", "events"): ResourceFields(_EVENT_FIELDS),
        # Stored as core/v1 events, so the paths are those; only the names asked for differ.
        ("events.k8s.io", "events"): _Renamed(
            _EVENT_FIELDS,
            MappingProxyType(
                {f"regarding.{part}": f"involvedObject.{part}" for part in _REFERENCE}
                | {"reportingController": "reportingComponent"}
                | {
                    name: name
                    for name in ("metadata.name", "metadata.namespace", "reason", "source", "type")
                }
            ),
        ),
        ("batch", "jobs"): ResourceFields(
            (
                NAME,
                NAMESPACE,
                Field("status.successful", (("status", "succeeded"),), "0", "integer"),
            ),
            unsupported=lambda name: f"field label {quoted(name)} not supported for batchv1.Job",
        ),
        ("certificates.k8s.io", "certificatesigningrequests"): ResourceFields(
            (NAME, _dotted("spec.signerName"))
        ),
        ("certificates.k8s.io", "clustertrustbundles"): ResourceFields(
            (NAME, _dotted("spec.signerName"))
        ),
        ("certificates.k8s.io", "podcertificaterequests"): ResourceFields(
            (NAME, _dotted("spec.signerName"), _dotted("spec.podName"), _dotted("spec.nodeName"))
        ),
        ("resource.k8s.io", "resourceslices"): ResourceFields(
            (NAME, _dotted("spec.nodeName"), _dotted("spec.driver")),
            unsupported=lambda name: (
                "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: " + name
            ),
        ),
    }
)


def fields_of(group: str, resource: str) -> ResourceFields:
    """The selectable fields of a built-in resource."""
    return FIELDS.get((group, resource), DEFAULT_FIELDS)


def custom_fields(selectable: Iterable[str], *, namespaced: bool) -> ResourceFields:
    """The fields of a custom resource: its `selectableFields`, JSON paths such as `.spec.color`.

    BadRequest for a path that a CustomResourceDefinition couldn't carry.
    """
    fields = [NAME, NAMESPACE] if namespaced else [NAME]
    for path in selectable:
        if not re.fullmatch(r"(\.[A-Za-z0-9_-]+)+", path):
            raise BadRequest(f"not a simple JSON path of a selectable field: {path!r}")
        fields.append(_dotted(path[1:], kind="any"))
    return ResourceFields(tuple(fields))


def _at(value: object, path: Path) -> object:
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return None
            value = value[step]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            return None
    return value


def _text(value: object, kind: str) -> str:
    if isinstance(value, str) and kind in ("string", "any"):
        return value
    if isinstance(value, bool):
        return str(value).lower() if kind in ("boolean", "any") else ""
    if isinstance(value, int) and kind in ("integer", "any"):
        return str(value)
    return ""

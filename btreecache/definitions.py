"""Definitions: what a CustomResourceDefinition makes, as a Resource. Pure.

A definition is served when an API server serves it: once its names were accepted (condition
Established), under the names that were accepted. Objects lie in etcd in the version that was the
storage version when they were written. Without a conversion webhook its versions differ by their
apiVersion alone, so every served version is; with one, only the storage version, because nobody
here can ask the webhook.

API servers store definitions as JSON, as apiextensions.k8s.io/v1 or, the older and shorter way
that they still prefer, v1beta1: there what all versions share stands once, above them.
What can't be understood is refused as a whole: half a definition would be another one.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.errors import BadRequest
from btreecache.fields import custom_fields
from btreecache.resources import DNS_LABEL, Custom, PrinterColumn, Resource, by_preference

#: What an API server allows; more isn't a definition that one has stored.
VERSIONS_MAX, COLUMNS_MAX, SELECTABLE_MAX, NAMES_MAX = 200, 200, 8, 100

_LABEL = re.compile(DNS_LABEL)
_GROUP = re.compile(rf"{DNS_LABEL}(?:\.{DNS_LABEL})+")
_KIND = re.compile(r"[A-Za-z](?:[-A-Za-z0-9]{0,61}[A-Za-z0-9])?")

_Names = Annotated[list[str], msgspec.Meta(max_length=NAMES_MAX)]


class _Told(msgspec.Struct, rename="camel", gc=False):
    """A struct of the API. What is null is absent, as everywhere in it."""


class _Column(_Told):
    name: str
    type: str
    format: str | None = None
    description: str | None = None
    priority: int | None = None
    json_path: str | None = None
    old_path: str | None = msgspec.field(default=None, name="JSONPath")


class _Selectable(_Told):
    json_path: str


_Columns = Annotated[list[_Column], msgspec.Meta(max_length=COLUMNS_MAX)]
_Selectables = Annotated[list[_Selectable], msgspec.Meta(max_length=SELECTABLE_MAX)]


class _Version(_Told):
    name: str
    served: bool
    storage: bool
    additional_printer_columns: _Columns | None = None
    selectable_fields: _Selectables | None = None


class _Accepted(_Told):
    plural: str = ""
    kind: str = ""
    singular: str | None = None
    list_kind: str | None = None
    short_names: _Names | None = None
    categories: _Names | None = None


class _Conversion(_Told):
    strategy: str = "None"


class _Spec(_Told):
    group: str
    scope: str
    version: str | None = None
    versions: Annotated[list[_Version], msgspec.Meta(max_length=VERSIONS_MAX)] | None = None
    conversion: _Conversion | None = None
    additional_printer_columns: _Columns | None = None
    selectable_fields: _Selectables | None = None


class _Condition(_Told):
    type: str
    status: str


class _Status(_Told):
    accepted_names: _Accepted | None = None
    conditions: list[_Condition] | None = None


class _Metadata(_Told):
    name: str


class _Definition(_Told):
    metadata: _Metadata
    spec: _Spec
    status: _Status | None = None


_decode = msgspec.json.Decoder(_Definition).decode


def resource_of(text: bytes) -> Resource | None:
    """The resource that a definition in JSON makes; None while it makes none: its names were not
    accepted yet, or no version is served.

    O(len(text)). Raises Unreadable for what no API server has stored.
    """
    try:
        definition = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"no CustomResourceDefinition: {error}") from None
    spec, status = definition.spec, definition.status or _Status()
    conditions = status.conditions or []
    established = any((one.type, one.status) == ("Established", "True") for one in conditions)
    if not established or status.accepted_names is None:
        return None
    names = status.accepted_names
    _check_names(definition.metadata.name, spec, names)
    versions = _versions(spec)
    storage = [one.name for one in versions if one.storage]
    if len(storage) != 1:
        raise Unreadable(f"{len(storage)} storage versions")
    converts = (spec.conversion or _Conversion()).strategy != "None"
    shown = [one for one in versions if one.served and (one.storage or not converts)]
    if not shown:
        return None
    return Resource(
        spec.group, names.plural, names.kind, spec.scope == "Namespaced",
        by_preference(one.name for one in shown), f"{spec.group}/{names.plural}",
        (*(names.short_names or ()),), (*(names.categories or ()),),
        Custom(
            names.singular or names.kind.lower(),
            names.list_kind or f"{names.kind}List",
            () if converts else tuple(one.name for one in versions),
            tuple((one.name, _columns(one, spec)) for one in shown),
            _selectable(shown, spec),
        ),
    )  # fmt: skip


def _check_names(name: str, spec: _Spec, names: _Accepted) -> None:
    """What becomes part of a path or a key has to be what may stand there. Raises Unreadable."""
    if name != f"{names.plural}.{spec.group}":
        raise Unreadable("its name is not plural.group")
    if not _GROUP.fullmatch(spec.group) or len(spec.group) > 253:
        raise Unreadable("its group is no DNS name")
    labels = [names.plural, *filter(None, (names.singular, *(names.short_names or ())))]
    if not all(map(_LABEL.fullmatch, labels)):
        raise Unreadable("a name of it is no DNS label")
    if not all(map(_KIND.fullmatch, filter(None, (names.kind or "-", names.list_kind)))):
        raise Unreadable("its kind is none")
    if spec.scope not in ("Namespaced", "Cluster"):
        raise Unreadable("its scope is neither Namespaced nor Cluster")


def _versions(spec: _Spec) -> list[_Version]:
    """All its versions: v1beta1 may name only one, `version`. Raises Unreadable."""
    found = spec.versions or ([_Version(spec.version, True, True)] if spec.version else [])
    names = [one.name for one in found]
    if len({*names}) != len(names) or not all(map(_LABEL.fullmatch, names)):
        raise Unreadable("its versions are no DNS labels, or not all different")
    return found


def _columns(version: _Version, spec: _Spec) -> tuple[PrinterColumn, ...]:
    columns = version.additional_printer_columns or spec.additional_printer_columns or []
    return tuple(
        PrinterColumn(
            one.name, one.type, one.json_path or one.old_path or "",
            one.format or "", one.description or "", one.priority or 0,
        )
        for one in columns
    )  # fmt: skip


def _selectable(versions: list[_Version], spec: _Spec) -> tuple[str, ...]:
    """The paths of all versions: there is one cache for all, which has the fields of each."""
    paths: dict[str, None] = {}
    for one in versions:
        for field in one.selectable_fields or spec.selectable_fields or []:
            paths[field.json_path] = None
    try:
        custom_fields(paths, namespaced=True)
    except BadRequest as error:
        raise Unreadable(str(error)) from None
    return tuple(paths)

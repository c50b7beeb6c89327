"""OpenAPI 3.0: the paths that are served, and what is to be had there, by group version. Pure.

Objects of built-in types are described by the table of codec/schema, names and types of all their
fields (which is what `kubectl explain` shows); descriptions, defaults and which fields are required
are not in it. A custom resource may hold anything beside kind, apiVersion and metadata.
"""

from __future__ import annotations

from collections.abc import Iterator

from btreecache.codec.schema import Field, Schema, schema
from btreecache.encoding.media import MEDIA_TYPES, Offer, offer
from btreecache.resources import Resource, Resources
from btreecache.server.discovery import Document

_STRING: Document = {"type": "string"}
_INTEGER: Document = {"type": "integer", "format": "int64"}
_BOOLEAN: Document = {"type": "boolean"}
_OBJECT: Document = {"type": "object"}

#: The words of the table as schemas.
_WORDS: dict[str, Document] = {
    "string": _STRING,
    "bool": _BOOLEAN,
    "int32": {"type": "integer", "format": "int32"},
    "int64": _INTEGER,
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Duration": _STRING,
    "Quantity": {"oneOf": [_STRING, {"type": "number"}]},
    "IntOrString": {"oneOf": [_STRING, {"type": "integer"}], "format": "int-or-string"},
    "RawExtension": _OBJECT,
    "FieldsV1": _OBJECT,
    "JSON": {},
    "Strings": {"type": "array", "items": _STRING},
}

#: Query parameters: name, schema, what it is.
_PRETTY = ("pretty", _STRING, "Indent JSON.")
_VERSION = ("resourceVersion", _STRING, "Which state, see the Kubernetes API concepts.")
_INCLUDE = ("includeObject", {"type": "string", "enum": ["", "None", "Metadata", "Object"]},
            "What rows of a Table hold of their objects.")  # fmt: skip
_OF_GET = (_PRETTY, _VERSION, _INCLUDE)
_OF_LIST = (
    *_OF_GET,
    ("resourceVersionMatch", _STRING, "Exact or NotOlderThan."),
    ("limit", _INTEGER, "Objects of a page at most."),
    ("continue", _STRING, "The token of the page before."),
    ("labelSelector", _STRING, "Only objects with such labels."),
    ("fieldSelector", _STRING, "Only objects with such fields."),
    ("timeoutSeconds", _INTEGER, "How long a watch lasts."),
    ("watch", _BOOLEAN, "Changes as they happen, not a list."),
    ("allowWatchBookmarks", _BOOLEAN, "With bookmarks between the events of a watch."),
    ("sendInitialEvents", _BOOLEAN, "A watch begins with the state, and a bookmark says when."),
)
_PARAMETERS = {one[0]: one for one in _OF_LIST}


def index(tags: dict[str, str]) -> Document:
    """`/openapi/v3`: where the document of each group version is. `tags`: by path, its hash."""
    return {
        "paths": {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={tag}"}
            for path, tag in tags.items()
        }
    }


def path_of(group: str, version: str) -> str:
    """How the index names a group version."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def document(resources: Resources, group: str, version: str, build: str) -> Document:
    """The document of one group version. O(its resources and their fields)."""
    schemas = _Schemas(schema())
    paths: Document = {}
    for resource in resources.of(group, version):
        paths |= _paths(resource, version, schemas)
    status = schemas.reference("meta.k8s.io/v1.Status")
    parameters = {name: _query(*one) for name, one in _PARAMETERS.items()}
    failure = {
        "description": "It is refused.",
        "content": {MEDIA_TYPES["json"]: {"schema": status}},
    }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes, read-only", "version": build},
        "paths": paths,
        "components": {
            "schemas": schemas.found,
            "parameters": parameters,
            "responses": {"Failure": failure},
        },
    }


def _query(name: str, of: Document, description: str) -> Document:
    return {"name": name, "in": "query", "description": description, "schema": of}


def _paths(resource: Resource, version: str, schemas: _Schemas) -> Document:
    """The paths of a resource: of all its objects, those of a namespace, and one."""
    base = f"/{path_of(resource.group, version)}"
    plural = resource.plural
    below = (
        f"{base}/namespaces/{{namespace}}/{plural}" if resource.namespaced else f"{base}/{plural}"
    )
    several = _listed(resource, version, schemas)
    one = schemas.kind(resource, version)
    found: Document = {
        below: _item(resource, version, "list", several),
        f"{below}/{{name}}": _item(resource, version, "get", one),
    }
    if resource.namespaced:
        found[f"{base}/{plural}"] = _item(resource, version, "list", several, everywhere=True)
    return found


def _item(
    resource: Resource, version: str, action: str, answer: Document, *, everywhere: bool = False
) -> Document:
    """A path with its one operation, GET."""
    names = ["name"] if action == "get" else []
    names += ["namespace"] if resource.namespaced and not everywhere else []
    query = _OF_GET if action == "get" else _OF_LIST
    what = f"{resource.dotted}_{version}{'_everywhere' if everywhere else ''}".replace(".", "_")
    typed = resource.custom is None and _is_known(resource, version)
    forms = offer(typed=typed, watch=False)
    operation: Document = {
        "operationId": f"{action}_{what}",
        "tags": [resource.group_version(version).replace("/", "_")],
        "parameters": [{"$ref": f"#/components/parameters/{one[0]}"} for one in query],
        "responses": {
            "200": {"description": "It is found.", "content": _content(forms, answer)},
            "default": {"$ref": "#/components/responses/Failure"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource, version, resource.kind),
    }
    found: Document = {"get": operation}
    if names:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _STRING} for name in names
        ]
    return found


def _content(forms: Offer, answer: Document) -> Document:
    """The answer in each form; in Protobuf it is bytes."""
    return {
        MEDIA_TYPES[form]: {
            "schema": {"type": "string", "format": "binary"} if form == "protobuf" else answer
        }
        for form in forms.formats
    }


def _gvk(resource: Resource, version: str, kind: str) -> Document:
    return {"group": resource.group, "version": version, "kind": kind}


def _is_known(resource: Resource, version: str) -> bool:
    return schema().kind(resource.group_version(version), resource.kind) is not None


def _listed(resource: Resource, version: str, schemas: _Schemas) -> Document:
    """The schema of a list of a resource."""
    name = f"{resource.group_version(version)}.{resource.list_kind}"
    properties = {
        "apiVersion": _STRING,
        "kind": _STRING,
        "metadata": schemas.reference("meta.k8s.io/v1.ListMeta"),
        "items": {"type": "array", "items": schemas.kind(resource, version)},
    }
    return schemas.add(
        name,
        {
            "type": "object",
            "required": ["apiVersion", "items", "kind", "metadata"],
            "properties": properties,
            "x-kubernetes-group-version-kind": [_gvk(resource, version, resource.list_kind)],
        },
    )


class _Schemas:
    """The schemas that a document needs, each once, by name."""

    def __init__(self, table: Schema) -> None:
        self.found: dict[str, Document] = {}
        self._table = table

    def kind(self, resource: Resource, version: str) -> Document:
        """A reference to the schema of an object."""
        api_version = resource.group_version(version)
        name = f"{api_version}.{resource.kind}"
        extra: Document = {
            "x-kubernetes-group-version-kind": [_gvk(resource, version, resource.kind)]
        }
        if resource.custom is None and _is_known(resource, version):
            found = self.reference(name)
            self.found[_key(name)].update(extra)
            return found
        properties: Document = {
            "apiVersion": _STRING,
            "kind": _STRING,
            "metadata": self.reference("meta.k8s.io/v1.ObjectMeta"),
        }
        anything: Document = {"type": "object", "properties": properties}
        return self.add(name, anything | {"x-kubernetes-preserve-unknown-fields": True} | extra)

    def add(self, name: str, of: Document) -> Document:
        """A reference to a schema that is put there."""
        self.found[_key(name)] = of
        return {"$ref": f"#/components/schemas/{_key(name)}"}

    def reference(self, name: str) -> Document:
        """A reference to the schema of a message of the table, which is added with all it needs.
        Not by recursion: messages hold themselves."""
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if _key(one) not in self.found:
                self.found[_key(one)] = self._message(one)
                waiting += (field.type for field in self._fields(one) if field.is_message)
        return {"$ref": f"#/components/schemas/{_key(name)}"}

    def _fields(self, name: str) -> Iterator[Field]:
        """The fields of a message, those of structs that are spread over it among them."""
        for field in self._table.message(name).fields:
            if field.inline:
                yield from self._fields(field.type)
            elif not field.retired:
                yield field

    def _message(self, name: str) -> Document:
        message = self._table.message(name)
        if message.is_union:
            return {}  # an object, or a scalar or an array in its place
        properties: Document = {"apiVersion": _STRING, "kind": _STRING} if message.is_kind else {}
        properties |= {one.name: _property(one) for one in self._fields(name)}
        return {"type": "object", "properties": properties}


def _key(name: str) -> str:
    return name.replace("/", ".")


def _property(field: Field) -> Document:
    if field.is_message:
        of: Document = {"$ref": f"#/components/schemas/{_key(field.type)}"}
    else:
        of = _WORDS[field.type]
    match field.shape:
        case "[]":
            return {"type": "array", "items": of}
        case "{}":
            return {"type": "object", "additionalProperties": of}
    return of

"""RenamedForm: a custom resource whose versions differ by apiVersion alone.

Without a conversion webhook an API server converts between the versions of a custom resource by
writing another apiVersion, and nothing else. Objects stored as the version that is asked for go out
as they are stored; of all others the one member is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from btreecache.element import Element
from btreecache.encoding.form import NO_OBJECT, NOT_JSON, Form
from btreecache.encoding.values import Values
from btreecache.resources import Resource

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text: Final = msgspec.json.Encoder().encode


class RenamedForm(Form):
    """A Form whose objects are stored in any of the versions of the resource."""

    __slots__ = ("_stored",)

    def __init__(self, resource: Resource, version: str, values: Values) -> None:
        super().__init__(resource, version, False, values)
        assert resource.custom is not None
        self._stored = frozenset(map(resource.group_version, resource.custom.renamed))

    def text(self, element: Element) -> bytes:
        """The object as JSON, with the apiVersion that was asked for. Raises NotAcceptable."""
        if element.value.startswith(self.begins):
            return element.value
        self.check([element])
        return self.values.made(
            f"renamed {self.api_version}", element, lambda: self._renamed(element)
        )

    def json_length(self, elements: Sequence[Element]) -> tuple[int | None, int]:
        """Known ahead only if all are stored as what is asked for."""
        if all(one.value.startswith(self.begins) for one in elements):
            return super().json_length(elements)
        self.check(elements)
        return None, 0

    def judge(self, kind: str, api_version: str) -> str:
        if api_version in self._stored:
            api_version = self.api_version
        return super().judge(kind, api_version)

    def _renamed(self, element: Element) -> bytes:
        try:
            members = _members(element.value)
        except NOT_JSON:
            raise self.refusal([(element.key, NO_OBJECT)]) from None
        members["apiVersion"] = msgspec.Raw(_text(self.api_version))
        return _text(members)

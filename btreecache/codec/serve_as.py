"""serve_as: objects converted on their way into a cache, once, instead of when they are asked for.

For whoever asks for one form only: reads then cost what sending costs, and the cache holds that
form alone (JSON takes about twice the bytes of protobuf). Without it an object is converted when it
is first asked for, and kept within a budget.
"""

from __future__ import annotations

from typing import Literal

from btreecache.codec.base import Unreadable
from btreecache.codec.kubernetes import Transform
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.codec.transcode import json_of, protobuf_of
from btreecache.element import Element


def serve_as(form: Literal["json", "protobuf"]) -> Transform:
    """A transform (`Cache(transform=)`) that makes each decoded element's value one of this form.

    What is of it already, can't be read or can't be converted, stays as it is stored. As with every
    transform that drops content, the source's bytes can't be restored; their digest is kept. Pure,
    any thread; the converter is loaded here and not at the first element.
    """
    convert = json_of if form == "json" else protobuf_of

    def transform(element: Element) -> Element:
        value = element.value
        if element.problem is not None or value.startswith(MAGIC) == (form == "protobuf"):
            return element
        try:
            return element.altered(convert(value))
        except Unreadable:
            return element

    return transform

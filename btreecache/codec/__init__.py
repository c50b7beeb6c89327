"""Codecs: how the bytes that a source holds become what is served, with labels and fields.

`Raw` serves values as they are. `Kubernetes` serves objects as an API server answers with them.
"""

from __future__ import annotations

from btreecache.codec.base import Codec as Codec
from btreecache.codec.base import DeclaredField as DeclaredField
from btreecache.codec.base import Raw as Raw
from btreecache.codec.kubernetes import Kubernetes as Kubernetes
from btreecache.codec.kubernetes import Transform as Transform
from btreecache.codec.kubernetes import strip_managed_fields as strip_managed_fields

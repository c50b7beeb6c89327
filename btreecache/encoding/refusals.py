"""What only encoding refuses, or breaks off."""

from __future__ import annotations

from collections.abc import Iterable

from btreecache.errors import BtreecacheError


class NotAcceptable(BtreecacheError):
    """What was asked for exists, but not in a form that the client takes or that we can make."""

    status = 406
    reason = "NotAcceptable"


class EncodingAborted(BtreecacheError):
    """Something can't be encoded, and part of the answer is sent already.

    The answer must not be ended as if it were whole: the connection has to be cut.
    """


def only_accepted(media_types: Iterable[str]) -> NotAcceptable:
    """As an API server says it when nothing in an Accept header is any of its media types."""
    listed = ", ".join(media_types)
    return NotAcceptable(f"only the following media types are accepted: {listed}")

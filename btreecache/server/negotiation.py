"""Content negotiation: whether a client takes plain JSON, which is the one form there is.

A clause with `as=` asks for another form (Table, PartialObjectMetadata, aggregated discovery). Who
asks for one usually puts plain JSON behind it, and gets that; who takes nothing else is refused,
because a plain answer would not be understood.
"""

from __future__ import annotations

from btreecache.server.refusals import only_accepted

#: What is accepted, as the refusal lists it.
MEDIA_TYPES = ("application/json", "application/json;stream=watch")

_JSON = {"*/*", "application/*", "application/json"}


def check_accepts_json(accept: str | None) -> None:
    """Raises NotAcceptable unless some clause of the Accept header takes plain JSON. O(header).

    None or an empty header takes anything.
    """
    clauses = [clause.strip() for clause in (accept or "").split(",")]
    clauses = [clause for clause in clauses if clause]
    if clauses and not any(map(_takes_json, clauses)):
        raise only_accepted(MEDIA_TYPES)


def _takes_json(clause: str) -> bool:
    media_type, *parameters = (part.strip() for part in clause.split(";"))
    if media_type.lower() not in _JSON:
        return False
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "as" and value:
            return False
        if name == "q" and _is_zero(value):
            return False
    return True


def _is_zero(quality: str) -> bool:
    """Whether a clause is excluded; a quality that is no number excludes nothing."""
    return bool(quality) and not quality.strip("0.")

"""Hidden: Secrets are not there unless they are asked for.

No cache is ever begun over their keys, so nothing of them is read, kept, shown or written to an
archive, whatever a resource is called that lies there; who asks for them by their own path is told
that it is forbidden, as API servers say it, and not that they don't exist.
"""

from __future__ import annotations

from collections.abc import Mapping

from btreecache.options import wants_watch
from btreecache.resources import BUILT_IN, Resource
from btreecache.server.refusals import Unreachable

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def is_secret(resource: Resource, root: bytes) -> bool:
    """Whether a resource is Secrets, or any of its keys may be one's."""
    if (resource.group, resource.plural) == ("", "secrets"):
        return True
    secrets = BUILT_IN.get("", "v1", "secrets")
    assert secrets is not None
    theirs, own = secrets.prefix(root), resource.prefix(root)
    return own.startswith(theirs) or theirs.startswith(own)


def refuse_secrets(path: str, method: str, query: Mapping[str, str], user: str) -> None:
    """Raises Unreachable if the path is that of Secrets or of one."""
    match path.removeprefix("/").removesuffix("/").split("/"):
        case ["api", _, "namespaces", namespace, "secrets", *rest]:
            pass
        case ["api", _, "secrets", *rest]:
            namespace = ""
        case _:
            return
    name = rest[0] if rest else ""
    verb = _VERBS.get(method, "get")
    if verb == "get" and not name:
        verb = "watch" if wants_watch(query.items()) else "list"
    raise Unreachable(user, verb, "secrets", namespace, name, "they need --allow-secrets")

"""What an object says under a name, whatever is really there.

Cells are computed from JSON that anybody may have written into etcd. One rule for all of them: a
value of another type than the API's is as good as absent, and what is absent shows as an API server
shows it (`<none>`, `<unknown>`, 0, nothing). So no object can break the table of the others.
"""

from __future__ import annotations

from collections.abc import Mapping

#: A JSON object, decoded: values are str, int, float, bool, None, lists and objects.
Object = Mapping[str, object]

_EMPTY: Object = {}

_INT64 = 1 << 63


def text(holder: Object, name: str, default: str = "") -> str:
    """The string under `name`; the default if it is absent, empty or no string. O(1)."""
    value = holder.get(name)
    return value or default if type(value) is str else default


def number(holder: Object, name: str, default: int = 0) -> int:
    """The integer under `name`, else the default. The API has none beyond int64. O(1)."""
    value = holder.get(name)
    return value if type(value) is int and -_INT64 <= value < _INT64 else default


def boolean(holder: Object, name: str, default: bool = False) -> bool:
    """The truth value under `name`, else the default. O(1)."""
    value = holder.get(name)
    return value if type(value) is bool else default


def child(holder: Object, *path: str) -> Object:
    """The object at the end of a path of names, else an empty one. O(len(path))."""
    for name in path:
        value = holder.get(name)
        if type(value) is not dict:
            return _EMPTY
        holder = value
    return holder


def found(holder: Object, name: str) -> Object | None:
    """The object under `name`, where an empty one differs from none. O(1)."""
    value = holder.get(name)
    return value if type(value) is dict else None


def children(holder: Object, name: str) -> list[Object]:
    """The objects of the array under `name`. O(its length)."""
    value = holder.get(name)
    return [one for one in value if type(one) is dict] if type(value) is list else []


def texts(holder: Object, name: str) -> list[str]:
    """The strings of the array under `name`. O(its length)."""
    value = holder.get(name)
    return [one for one in value if type(one) is str] if type(value) is list else []


def string_map(holder: Object, name: str) -> dict[str, str]:
    """The pairs of strings of the object under `name`, as labels. O(its length)."""
    value = holder.get(name)
    if type(value) is not dict:
        return {}
    return {key: one for key, one in value.items() if type(one) is str}


def size(holder: Object, name: str) -> int:
    """How many entries the object or array under `name` has; 0 if it is neither. O(1)."""
    value = holder.get(name)
    return len(value) if type(value) in {dict, list} else 0  # type: ignore[arg-type]


def is_true(conditions: list[Object], kind: str) -> bool:
    """Whether the first condition of this type has the status True. O(conditions)."""
    for condition in conditions:
        if condition.get("type") == kind:
            return condition.get("status") == "True"
    return False

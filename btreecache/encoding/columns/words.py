"""How cells say times, labels and selectors, as kubectl users know them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from btreecache.encoding.columns.shape import Object, child, children, string_map, text, texts

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"
INVALID = "<invalid>"

#: Seconds of the longest duration that Go counts, in nanoseconds of int64.
_DURATION_S_MAX = (2**63 - 1) / 1e9

#: Go's zero time, which stands for no time.
_ZERO = datetime(1, 1, 1, tzinfo=UTC)

#: Entries of a list that a cell names before it counts the others.
LISTED_MAX = 3


def human_duration(seconds: float) -> str:
    """A duration in one or two units, the finer the shorter it is: 119s, 2m, 9m59s, 47h, 7d23h.

    A second in the future is now, as clocks differ; more is `<invalid>`.
    """
    whole = int(min(seconds, _DURATION_S_MAX))
    if whole < -1:
        return INVALID
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    years = days // 365
    if minutes < 2:
        return f"{max(whole, 0)}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if days < 2:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    if years < 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(coarse: int, unit: str, fine: int, finer: str) -> str:
    return f"{coarse}{unit}{fine}{finer}" if fine else f"{coarse}{unit}"


def seconds_at(holder: Object, name: str) -> float | None:
    """The RFC 3339 time under `name` in seconds since 1970; None if there is none. O(1)."""
    value = holder.get(name)
    if type(value) is not str:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is None or time == _ZERO:
            return None
        return time.timestamp()
    except (ValueError, OverflowError):
        return None


def since(time_s: float | None, now_s: float) -> str:
    """How long ago a time was; `<unknown>` for none."""
    return UNKNOWN if time_s is None else human_duration(now_s - time_s)


def age(holder: Object, now_s: float) -> str:
    """How long ago an object was created."""
    return since(seconds_at(child(holder, "metadata"), "creationTimestamp"), now_s)


def name_of(holder: Object) -> str:
    """An object's name."""
    return text(child(holder, "metadata"), "name")


def is_being_deleted(holder: Object) -> bool:
    """Whether an object waits for its end (it has a deletionTimestamp)."""
    return text(child(holder, "metadata"), "deletionTimestamp") != ""


def listed(names: list[str], count: int, empty: str) -> str:
    """The first names and how many of `count` were left out."""
    said = ",".join(names[:LISTED_MAX])
    if count > LISTED_MAX:
        return f"{said} + {count - LISTED_MAX} more..."
    return said or empty


def pairs(labels: Mapping[str, str]) -> str:
    """Labels, or a selector of equalities: sorted by name."""
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels)) or NONE


def selector(holder: Object, name: str) -> str | None:
    """The LabelSelector under `name` as text, requirements by key: "" where it is absent or
    selects everything, None where it is none that could be evaluated."""
    value = child(holder, name)
    said = [(key, f"{key}={one}") for key, one in string_map(value, "matchLabels").items()]
    for requirement in children(value, "matchExpressions"):
        key, values = text(requirement, "key"), texts(requirement, "values")
        match text(requirement, "operator"):
            case "Exists" if not values:
                said.append((key, key))
            case "DoesNotExist" if not values:
                said.append((key, f"!{key}"))
            case ("In" | "NotIn") as operator if values:
                chosen = ",".join(sorted(set(values)))
                said.append((key, f"{key} {operator.lower()} ({chosen})"))
            case _:
                return None
    return ",".join(one for _, one in sorted(said, key=lambda pair: pair[0]))


def selector_cell(holder: Object, name: str) -> str:
    """The LabelSelector under `name`, where none and everything look the same."""
    said = selector(holder, name)
    return "<error>" if said is None else said or NONE


def containers(pod_template: Object) -> tuple[str, str]:
    """Names and images of the containers of a pod template."""
    every = children(child(pod_template, "spec"), "containers")
    return (
        ",".join(text(one, "name") for one in every),
        ",".join(text(one, "image") for one in every),
    )


def addresses(ingress: Iterable[Object]) -> str:
    """Where a load balancer listens: IP addresses before names, each once, sorted."""
    said = {text(one, "ip") or text(one, "hostname") for one in ingress}
    return ",".join(sorted(said - {""}))

"""Pods: what state a pod is in, said in one word, and how often its containers were restarted.

The word is a convention that every Kubernetes user knows and that no field holds: the phase, unless
something more telling is known, from the outside in. Init containers are looked at in order, up to
the first that has not done its part; the others from the last to the first, so that the first one
with something to say has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from btreecache.encoding.columns.definition import AGE, NAME, Cell, Column, Columns, Registry, wide
from btreecache.encoding.columns.shape import (
    Object,
    boolean,
    child,
    children,
    found,
    is_true,
    number,
    text,
)
from btreecache.encoding.columns.words import (
    NONE,
    age,
    is_being_deleted,
    name_of,
    seconds_at,
    since,
)

#: What the node lifecycle controller writes into status.reason when a node is out of reach.
_NODE_LOST = "NodeLost"

#: Condition reason of a pod that the scheduler may not look at yet.
_GATED = "SchedulingGated"

#: Phases that a pod never leaves.
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(slots=True)
class Restarts:
    """Restarts of some containers, and when the last of them ended: seconds since 1970."""

    count: int = 0
    last_s: float | None = None

    def add(self, container: Object) -> None:
        """Counts in the restarts of one container."""
        self.count += number(container, "restartCount")
        before = found(child(container, "lastState"), "terminated")
        if before is None:
            return
        ended = seconds_at(before, "finishedAt")
        if ended is not None and (self.last_s is None or ended > self.last_s):
            self.last_s = ended

    def cell(self, now_s: float) -> str:
        """As in `3 (5m ago)`."""
        if self.count == 0 or self.last_s is None:
            return str(self.count)
        return f"{self.count} ({since(self.last_s, now_s)} ago)"


@dataclass(slots=True)
class State:
    """A pod's state: its word, how many of its containers are ready, their restarts.

    Sidecars (init containers that are always restarted) count as containers.
    """

    reason: str
    ready: int
    total: int
    restarts: Restarts


@dataclass(slots=True)
class _Init:
    """What the init containers say: the `problem` of the first that has not done its part ("" if
    all have), restarts up to that one, those of sidecars among them, and ready sidecars."""

    problem: str = ""
    restarts: Restarts = field(default_factory=Restarts)
    of_sidecars: Restarts = field(default_factory=Restarts)
    ready: int = 0


def _ended_how(terminated: Object) -> str:
    """Why a container stopped: its reason, else the signal, else its exit code."""
    reason, signal = text(terminated, "reason"), number(terminated, "signal")
    if reason:
        return reason
    return f"Signal:{signal}" if signal else f"ExitCode:{number(terminated, 'exitCode')}"


def _initialization(status: Object, sidecars: set[str], declared: int) -> _Init:
    init = _Init()
    for index, container in enumerate(children(status, "initContainerStatuses")):
        sidecar = text(container, "name") in sidecars
        init.restarts.add(container)
        if sidecar:
            init.of_sidecars.add(container)
        state = child(container, "state")
        terminated = found(state, "terminated")
        if terminated is not None and number(terminated, "exitCode") == 0:
            continue
        if sidecar and boolean(container, "started"):
            init.ready += boolean(container, "ready")
            continue
        if terminated is not None:
            init.problem = _ended_how(terminated)
        else:
            waiting = text(child(state, "waiting"), "reason")
            at_work = waiting in {"", "PodInitializing"}
            init.problem = f"{index}/{declared}" if at_work else waiting
        break
    return init


def _take_in_containers(state: State, status: Object, conditions: list[Object]) -> None:
    """What the containers of a pod that is initialized say."""
    running = False
    for container in reversed(children(status, "containerStatuses")):
        state.restarts.add(container)
        what = child(container, "state")
        waiting, terminated = text(child(what, "waiting"), "reason"), found(what, "terminated")
        if waiting:
            state.reason = waiting
        elif terminated is not None:
            state.reason = _ended_how(terminated)
        elif boolean(container, "ready") and found(what, "running") is not None:
            running = True
            state.ready += 1
    if state.reason == "Completed" and running:
        ready = any(one.get("type") == "Ready" and is_true([one], "Ready") for one in conditions)
        state.reason = "Running" if ready else "NotReady"


def state_of(pod: Object) -> State:
    """The state of a pod. O(its containers and conditions)."""
    spec, status = child(pod, "spec"), child(pod, "status")
    conditions = children(status, "conditions")
    init_containers = children(spec, "initContainers")
    sidecars = [one for one in init_containers if one.get("restartPolicy") == "Always"]
    phase, said = text(status, "phase"), text(status, "reason")
    init = _initialization(
        status, {text(one, "name") for one in sidecars}, declared=len(init_containers)
    )
    state = State(
        reason=said or phase,
        ready=init.ready,
        total=len(children(spec, "containers")) + len(sidecars),
        restarts=init.restarts,
    )
    for condition in conditions:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == _GATED:
            state.reason = _GATED
    if init.problem:
        state.reason = f"Init:{init.problem}"
    if not init.problem or is_true(conditions, "Initialized"):
        # Init containers that have done their part no longer matter, but for the sidecars.
        state.restarts = init.of_sidecars
        _take_in_containers(state, status, conditions)
    if is_being_deleted(pod):
        if said == _NODE_LOST:
            state.reason = "Unknown"
        elif phase not in _ENDED:
            state.reason = "Terminating"
    return state


def _readiness_gates(spec: Object, status: Object) -> str:
    gates = children(spec, "readinessGates")
    if not gates:
        return NONE
    conditions = children(status, "conditions")
    open_gates = sum(is_true(conditions, text(gate, "conditionType")) for gate in gates)
    return f"{open_gates}/{len(gates)}"


def _ip(status: Object) -> str:
    """The first of podIPs; podIP where an old server wrote that only."""
    first = children(status, "podIPs")[:1]
    return (text(first[0], "ip") if first else text(status, "podIP")) or NONE


def _cells(pod: Object, now_s: float) -> list[Cell]:
    spec, status, state = child(pod, "spec"), child(pod, "status"), state_of(pod)
    return [
        name_of(pod),
        f"{state.ready}/{state.total}",
        state.reason,
        state.restarts.cell(now_s),
        age(pod, now_s),
        _ip(status),
        text(spec, "nodeName", NONE),
        text(status, "nominatedNodeName", NONE),
        _readiness_gates(spec, status),
    ]


def _completed(pod: Object) -> str:
    phase = text(child(pod, "status"), "phase")
    return phase if phase in _ENDED else ""


PODS: Registry = {
    ("", "pods"): Columns(
        (
            NAME,
            Column("Ready", "Containers that are ready, of all that the pod has."),
            Column("Status", "What state the pod's containers are in, in one word."),
            # A string since Kubernetes 1.22, which says when the last restart was.
            Column("Restarts", "How often containers were restarted, and when last."),
            AGE,
            wide("IP", "The pod's address in the cluster."),
            wide("Node", "The node that the pod was assigned to."),
            wide("Nominated Node", "The node where pods are evicted to make room for this one."),
            wide("Readiness Gates", "Conditions beyond its containers that the pod waits for."),
        ),
        _cells,
        completed=_completed,
    )
}

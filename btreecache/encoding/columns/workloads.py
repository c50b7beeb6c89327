"""Deployments and the other types that start pods.

Where an object leaves out what the API server fills in on reading (one replica), so do these.
"""

from __future__ import annotations

from btreecache.encoding.columns.definition import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    SELECTOR,
    Cell,
    Column,
    Columns,
    Registry,
    integer,
)
from btreecache.encoding.columns.shape import (
    Object,
    boolean,
    child,
    children,
    is_true,
    number,
    size,
    string_map,
    text,
)
from btreecache.encoding.columns.words import (
    INVALID,
    NONE,
    age,
    containers,
    human_duration,
    is_being_deleted,
    name_of,
    pairs,
    seconds_at,
    selector,
    selector_cell,
    since,
)

_DESIRED = integer("Desired", "How many pods there should be.")
_CURRENT = integer("Current", "How many pods there are.")
_READY = integer("Ready", "How many pods are ready.")
_READY_OF = Column("Ready", "Pods that are ready, of those that there should be.")


def _deployment(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    chosen = selector(spec, "selector")
    return [
        name_of(one),
        f"{number(status, 'readyReplicas')}/{number(spec, 'replicas', 1)}",
        number(status, "updatedReplicas"),
        number(status, "availableReplicas"),
        age(one, now_s),
        *containers(child(spec, "template")),
        INVALID if chosen is None else chosen,
    ]


def _replica_set(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    return [*_replicas(one, now_s), selector_cell(spec, "selector")]


def _replication_controller(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    return [*_replicas(one, now_s), pairs(string_map(spec, "selector"))]


def _replicas(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    return [
        name_of(one),
        number(spec, "replicas", 1),
        number(status, "replicas"),
        number(status, "readyReplicas"),
        age(one, now_s),
        *containers(child(spec, "template")),
    ]


def _stateful_set(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    ready = f"{number(status, 'readyReplicas')}/{number(spec, 'replicas', 1)}"
    return [name_of(one), ready, age(one, now_s), *containers(child(spec, "template"))]


def _daemon_set(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    return [
        name_of(one),
        number(status, "desiredNumberScheduled"),
        number(status, "currentNumberScheduled"),
        number(status, "numberReady"),
        number(status, "updatedNumberScheduled"),
        number(status, "numberAvailable"),
        pairs(string_map(child(spec, "template", "spec"), "nodeSelector")),
        age(one, now_s),
        *containers(child(spec, "template")),
        selector_cell(spec, "selector"),
    ]


def _job_status(job: Object) -> str:
    conditions = children(child(job, "status"), "conditions")
    for condition in ("Complete", "Failed"):
        if is_true(conditions, condition):
            return condition
    if is_being_deleted(job):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget"):
        if is_true(conditions, condition):
            return condition
    return "Running"


def _completions(job: Object) -> str:
    """Pods that succeeded, of those that have to. With no number of completions one is enough,
    whichever of the parallel ones it is."""
    spec, done = child(job, "spec"), number(child(job, "status"), "succeeded")
    parallelism = number(spec, "parallelism", 1)
    wanted = number(spec, "completions", -1)
    if wanted >= 0:
        return f"{done}/{wanted}"
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _job_duration(job: Object, now_s: float) -> str:
    status = child(job, "status")
    started, ended = seconds_at(status, "startTime"), seconds_at(status, "completionTime")
    if started is None:
        return ""
    return human_duration((now_s if ended is None else ended) - started)


def _job(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    return [
        name_of(one),
        _job_status(one),
        _completions(one),
        _job_duration(one, now_s),
        age(one, now_s),
        *containers(child(spec, "template")),
        selector_cell(spec, "selector"),
    ]


def _cron_job(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    job, last = child(spec, "jobTemplate", "spec"), seconds_at(status, "lastScheduleTime")
    return [
        name_of(one),
        text(spec, "schedule"),
        text(spec, "timeZone", NONE),
        # A word, though the column's type says boolean: so did every server.
        str(boolean(spec, "suspend")),
        size(status, "active"),
        NONE if last is None else since(last, now_s),
        age(one, now_s),
        *containers(child(job, "template")),
        selector_cell(job, "selector"),
    ]


WORKLOADS: Registry = {
    ("apps", "deployments"): Columns(
        (
            NAME,
            _READY_OF,
            Column("Up-to-date", "Pods that were made from the current template."),
            Column("Available", "Pods that have been ready for long enough."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ),
        _deployment,
    ),
    ("apps", "replicasets"): Columns(
        (NAME, _DESIRED, _CURRENT, _READY, AGE, CONTAINERS, IMAGES, SELECTOR), _replica_set
    ),
    ("", "replicationcontrollers"): Columns(
        (NAME, _DESIRED, _CURRENT, _READY, AGE, CONTAINERS, IMAGES, SELECTOR),
        _replication_controller,
    ),
    ("apps", "statefulsets"): Columns((NAME, _READY_OF, AGE, CONTAINERS, IMAGES), _stateful_set),
    ("apps", "daemonsets"): Columns(
        (
            NAME,
            integer("Desired", "Nodes that should run the pod."),
            integer("Current", "Nodes that should and do run the pod."),
            integer("Ready", "Nodes where the pod is ready."),
            integer("Up-to-date", "Nodes whose pod was made from the current template."),
            integer("Available", "Nodes whose pod has been ready for long enough."),
            Column("Node Selector", "Labels that a node needs to run the pod."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ),
        _daemon_set,
    ),
    ("batch", "jobs"): Columns(
        (
            NAME,
            Column("Status", "Where the job stands."),
            Column("Completions", "Pods that have succeeded, of those that have to."),
            Column("Duration", "How long the job took, or has been running."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ),
        _job,
    ),
    ("batch", "cronjobs"): Columns(
        (
            NAME,
            Column("Schedule", "When jobs are started, as in a crontab."),
            Column("Timezone", "Where the schedule's clock stands."),
            Column("Suspend", "Whether no more jobs are started.", type="boolean"),
            integer("Active", "Jobs that are running."),
            Column("Last Schedule", "Time since a job was last started."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ),
        _cron_job,
    ),
}

"""The types of the core group that run no pods: nodes, services, configuration, events, volumes.

Where an object leaves out what the API server fills in on reading (a service's type, a phase), so
do these.
"""

from __future__ import annotations

from btreecache.encoding.columns.definition import (
    AGE,
    NAME,
    Cell,
    Column,
    Columns,
    Registry,
    wide,
)
from btreecache.encoding.columns.shape import (
    Object,
    boolean,
    child,
    children,
    found,
    number,
    size,
    string_map,
    text,
    texts,
)
from btreecache.encoding.columns.words import (
    LISTED_MAX,
    NONE,
    UNKNOWN,
    UNSET,
    addresses,
    age,
    is_being_deleted,
    listed,
    name_of,
    pairs,
    seconds_at,
    since,
)

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"

#: Where the storage class was before it became a field.
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"

#: Access modes in the order of a cell.
_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _node_status(node: Object) -> str:
    said = "Unknown"
    for condition in children(child(node, "status"), "conditions"):
        if condition.get("type") == "Ready":
            said = "Ready" if condition.get("status") == "True" else "NotReady"
    return f"{said},SchedulingDisabled" if boolean(child(node, "spec"), "unschedulable") else said


def _roles(node: Object) -> str:
    labels = string_map(child(node, "metadata"), "labels")
    roles = {name.removeprefix(_ROLE_PREFIX) for name in labels if name.startswith(_ROLE_PREFIX)}
    roles.add(labels.get(_ROLE_LABEL, ""))
    return ",".join(sorted(roles - {""})) or NONE


def _address(node: Object, kind: str) -> str:
    for address in children(child(node, "status"), "addresses"):
        if address.get("type") == kind:
            return text(address, "address")
    return NONE


def _node(one: Object, now_s: float) -> list[Cell]:
    info = child(one, "status", "nodeInfo")
    return [
        name_of(one),
        _node_status(one),
        _roles(one),
        age(one, now_s),
        text(info, "kubeletVersion"),
        _address(one, "InternalIP"),
        _address(one, "ExternalIP"),
        text(info, "osImage", UNKNOWN),
        text(info, "kernelVersion", UNKNOWN),
        text(info, "containerRuntimeVersion", UNKNOWN),
    ]


def _external_ip(service: Object, kind: str) -> str:
    spec = child(service, "spec")
    if kind == "ExternalName":
        return text(spec, "externalName")
    if kind not in {"ClusterIP", "NodePort", "LoadBalancer"}:
        return UNKNOWN
    external = texts(spec, "externalIPs")
    if kind != "LoadBalancer":
        return ",".join(external) or NONE
    given = addresses(children(child(service, "status", "loadBalancer"), "ingress"))
    return ",".join([given, *external] if given else external) or "<pending>"


def _ports(spec: Object) -> str:
    said = []
    for port in children(spec, "ports"):
        on_node = number(port, "nodePort")
        number_said = f"{number(port, 'port')}:{on_node}" if on_node > 0 else number(port, "port")
        said.append(f"{number_said}/{text(port, 'protocol', 'TCP')}")
    return ",".join(said) or NONE


def _cluster_ip(spec: Object) -> str:
    """The first of clusterIPs; clusterIP where an old server wrote that only."""
    every = texts(spec, "clusterIPs")
    return every[0] if every else text(spec, "clusterIP", NONE)


def _service(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    kind = text(spec, "type", "ClusterIP")
    return [
        name_of(one),
        kind,
        _cluster_ip(spec),
        _external_ip(one, kind),
        _ports(spec),
        age(one, now_s),
        pairs(string_map(spec, "selector")),
    ]


def _config_map(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), size(one, "data") + size(one, "binaryData"), age(one, now_s)]


def _secret(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), text(one, "type", "Opaque"), size(one, "data"), age(one, now_s)]


def _service_account(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), size(one, "secrets"), age(one, now_s)]


def _namespace(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), text(child(one, "status"), "phase", "Active"), age(one, now_s)]


def _time(event: Object, *names: str) -> float | None:
    """The first of these times that there is."""
    times = (seconds_at(event, name) for name in names)
    return next((one for one in times if one is not None), None)


def _event_times(event: Object, now_s: float) -> tuple[str, str, int]:
    """When it was seen first and last, and how often; an event that never repeated has no count."""
    first = _time(event, "firstTimestamp", "deprecatedFirstTimestamp", "eventTime")
    last = _time(event, "lastTimestamp", "deprecatedLastTimestamp")
    last = first if last is None else last
    count = number(event, "count") or number(event, "deprecatedCount") or 1
    series = found(event, "series")
    if series is not None:
        last, count = seconds_at(series, "lastObservedTime"), number(series, "count")
    return since(first, now_s), since(last, now_s), count


def _event_source(event: Object) -> str:
    source = found(event, "source") or child(event, "deprecatedSource")
    component = text(source, "component") or text(event, "reportingController")
    component = component or text(event, "reportingComponent")
    host = text(source, "host") or text(event, "reportingInstance")
    return f"{component}, {host}" if host else component


def _event(one: Object, now_s: float) -> list[Cell]:
    """An event, as v1 or as events.k8s.io/v1 names its fields."""
    about = found(one, "involvedObject") or child(one, "regarding")
    kind, name = text(about, "kind").lower(), text(about, "name")
    first, last, count = _event_times(one, now_s)
    return [
        last,
        text(one, "type"),
        text(one, "reason"),
        f"{kind}/{name}" if name else kind,
        text(about, "fieldPath"),
        _event_source(one),
        (text(one, "message") or text(one, "note")).strip(),
        first,
        count,
        name_of(one),
    ]


def _endpoints(one: Object, now_s: float) -> list[Cell]:
    subsets = children(one, "subsets")
    said: list[str] = []
    count = 0
    for subset in subsets:
        ips = [text(address, "ip") for address in children(subset, "addresses")]
        ports = children(subset, "ports")
        count += len(ips) * max(len(ports), 1)
        if not ports:
            said += ips[:LISTED_MAX]
        for port in ports:
            hosts = (f"[{ip}]" if ":" in ip else ip for ip in ips[:LISTED_MAX])
            said += [f"{host}:{number(port, 'port')}" for host in hosts]
    return [name_of(one), listed(said, count, "") if subsets else NONE, age(one, now_s)]


def _modes(holder: Object) -> str:
    modes = set(texts(holder, "accessModes"))
    return ",".join(short for mode, short in _MODES.items() if mode in modes)


def _storage_class(volume: Object) -> str:
    annotations = child(volume, "metadata", "annotations")
    if type(annotations.get(_CLASS_ANNOTATION)) is str:
        return text(annotations, _CLASS_ANNOTATION)
    return text(child(volume, "spec"), "storageClassName")


def _phase(volume: Object) -> str:
    if is_being_deleted(volume):
        return "Terminating"
    return text(child(volume, "status"), "phase", "Pending")


def _volume(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    claim = found(spec, "claimRef")
    return [
        name_of(one),
        text(child(spec, "capacity"), "storage", "0"),
        _modes(spec),
        text(spec, "persistentVolumeReclaimPolicy", "Retain"),
        _phase(one),
        "" if claim is None else f"{text(claim, 'namespace')}/{text(claim, 'name')}",
        _storage_class(one),
        text(spec, "volumeAttributesClassName", UNSET),
        text(status, "reason"),
        age(one, now_s),
        text(spec, "volumeMode", "Filesystem"),
    ]


def _volume_claim(one: Object, now_s: float) -> list[Cell]:
    spec, status = child(one, "spec"), child(one, "status")
    volume = text(spec, "volumeName")
    return [
        name_of(one),
        _phase(one),
        volume,
        text(child(status, "capacity"), "storage", "0") if volume else "",
        _modes(status) if volume else "",
        _storage_class(one),
        text(spec, "volumeAttributesClassName", UNSET),
        age(one, now_s),
        text(spec, "volumeMode", "Filesystem"),
    ]


_EVENTS = Columns(
    (
        Column("Last Seen", "Time since it happened last."),
        Column("Type", "Normal, or Warning."),
        Column("Reason", "What happened, in one word."),
        Column("Object", "What it happened to."),
        wide("Subobject", "Which part of that object."),
        wide("Source", "Who reported it, and from where."),
        Column("Message", "What happened, in a sentence."),
        wide("First Seen", "Time since it happened first."),
        wide("Count", "How often it has happened."),
        Column("Name", NAME.description, format="name", priority=1),
    ),
    _event,
    (
        "type", "reason", "message", "note", "involvedObject", "regarding", "source",
        "deprecatedSource", "reportingComponent", "reportingController", "reportingInstance",
        "firstTimestamp", "deprecatedFirstTimestamp", "lastTimestamp", "deprecatedLastTimestamp",
        "eventTime", "series", "count", "deprecatedCount",
    ),
)  # fmt: skip

CORE: Registry = {
    ("", "nodes"): Columns(
        (
            NAME,
            Column("Status", "Whether the node is ready and takes pods."),
            Column("Roles", "What the node is for, by its labels."),
            AGE,
            Column("Version", "The version of its kubelet."),
            wide("Internal-IP", "Its first address inside the cluster."),
            wide("External-IP", "Its first address outside the cluster."),
            wide("OS-Image", "Its operating system."),
            wide("Kernel-Version", "Its kernel."),
            wide("Container-Runtime", "What runs its containers."),
        ),
        _node,
    ),
    ("", "services"): Columns(
        (
            NAME,
            Column("Type", "How the service is reached."),
            Column("Cluster-IP", "Its address inside the cluster."),
            Column("External-IP", "Its addresses outside the cluster."),
            Column("Port(s)", "Its ports, and those on every node."),
            AGE,
            wide("Selector", "Labels of the pods that serve it."),
        ),
        _service,
    ),
    ("", "configmaps"): Columns(
        (NAME, Column("Data", "How many entries it has."), AGE),
        _config_map,
        ("data", "binaryData"),
    ),
    ("", "secrets"): Columns(
        (
            NAME,
            Column("Type", "What the secret is for."),
            Column("Data", "How many entries it has."),
            AGE,
        ),
        _secret,
        ("type", "data"),
    ),
    ("", "serviceaccounts"): Columns(
        (NAME, Column("Secrets", "How many secrets it lists."), AGE),
        _service_account,
        ("secrets",),
    ),
    ("", "namespaces"): Columns(
        (NAME, Column("Status", "Active, or on its way out."), AGE), _namespace
    ),
    ("", "events"): _EVENTS,
    ("events.k8s.io", "events"): _EVENTS,
    ("", "endpoints"): Columns(
        (NAME, Column("Endpoints", "Addresses and ports that are ready."), AGE),
        _endpoints,
        ("subsets",),
    ),
    ("", "persistentvolumes"): Columns(
        (
            NAME,
            Column("Capacity", "How much it holds."),
            Column("Access Modes", "Who may mount it, and how."),
            Column("Reclaim Policy", "What becomes of it once it is released."),
            Column("Status", "Whether it is bound to a claim."),
            Column("Claim", "The claim that it is bound to."),
            Column("StorageClass", "The class that it belongs to."),
            Column("VolumeAttributesClass", "The class of its attributes."),
            Column("Reason", "Why it is in this state."),
            AGE,
            wide("VolumeMode", "Whether it holds a file system or blocks."),
        ),
        _volume,
    ),
    ("", "persistentvolumeclaims"): Columns(
        (
            NAME,
            Column("Status", "Whether it is bound to a volume."),
            Column("Volume", "The volume that it is bound to."),
            Column("Capacity", "How much that volume holds."),
            Column("Access Modes", "Who may mount it, and how."),
            Column("StorageClass", "The class that it asks for."),
            Column("VolumeAttributesClass", "The class of its attributes."),
            AGE,
            wide("VolumeMode", "Whether it holds a file system or blocks."),
        ),
        _volume_claim,
    ),
}

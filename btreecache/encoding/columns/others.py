"""Types of the other groups: networking, storage, policy, roles, leases."""

from __future__ import annotations

from btreecache.encoding.columns.definition import (
    AGE,
    NAME,
    Cell,
    Column,
    Columns,
    Registry,
    integer,
    wide,
)
from btreecache.encoding.columns.shape import (
    Object,
    boolean,
    child,
    children,
    found,
    number,
    text,
    texts,
)
from btreecache.encoding.columns.words import (
    LISTED_MAX,
    NONE,
    UNSET,
    addresses,
    age,
    listed,
    name_of,
    selector_cell,
)

_DEFAULT_CLASSES = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _hosts(rules: list[Object]) -> str:
    """Hosts in the order of the rules, and how many rules come after the last one named."""
    hosts: list[str] = []
    for rule in rules:
        if len(hosts) == LISTED_MAX:
            return listed(hosts, len(rules), "*")
        host = text(rule, "host")
        hosts += [host] if host else []
    return listed(hosts, len(hosts), "*")


def _ingress(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    return [
        name_of(one),
        text(spec, "ingressClassName", NONE),
        _hosts(children(spec, "rules")),
        addresses(children(child(one, "status", "loadBalancer"), "ingress")),
        "80, 443" if children(spec, "tls") else "80",
        age(one, now_s),
    ]


def _ingress_class(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    parameters = found(spec, "parameters")
    said = NONE
    if parameters is not None:
        kind, group = text(parameters, "kind"), text(parameters, "apiGroup")
        said = f"{kind}.{group}" if group else kind
        said += f"/{text(parameters, 'name')}"
    return [name_of(one), text(spec, "controller"), said, age(one, now_s)]


def _network_policy(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), selector_cell(child(one, "spec"), "podSelector"), age(one, now_s)]


def _port(port: Object) -> str:
    """A port's number; where every port is meant, its name."""
    value = number(port, "port", -1)
    return text(port, "name", "*") if value < 0 else str(value)


def _endpoint_slice(one: Object, now_s: float) -> list[Cell]:
    ports = [_port(port) for port in children(one, "ports")]
    where = [ip for endpoint in children(one, "endpoints") for ip in texts(endpoint, "addresses")]
    return [
        name_of(one),
        text(one, "addressType"),
        listed(ports, len(ports), UNSET),
        listed(where, len(where), UNSET),
        age(one, now_s),
    ]


def _storage_class(one: Object, now_s: float) -> list[Cell]:
    annotations = child(one, "metadata", "annotations")
    is_default = any(annotations.get(name) == "true" for name in _DEFAULT_CLASSES)
    return [
        f"{name_of(one)} (default)" if is_default else name_of(one),
        text(one, "provisioner"),
        text(one, "reclaimPolicy", "Delete"),
        text(one, "volumeBindingMode", "Immediate"),
        boolean(one, "allowVolumeExpansion"),
        age(one, now_s),
    ]


def _priority_class(one: Object, now_s: float) -> list[Cell]:
    return [
        name_of(one),
        number(one, "value"),
        boolean(one, "globalDefault"),
        age(one, now_s),
        text(one, "preemptionPolicy", "PreemptLowerPriority"),
    ]


def _lease(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), text(child(one, "spec"), "holderIdentity"), age(one, now_s)]


def _count_or_share(spec: Object, name: str) -> str:
    """A number of pods or a percentage of them, as the budget has it."""
    value = number(spec, name, -1)
    return text(spec, name, "N/A") if value < 0 else str(value)


def _budget(one: Object, now_s: float) -> list[Cell]:
    spec = child(one, "spec")
    return [
        name_of(one),
        _count_or_share(spec, "minAvailable"),
        _count_or_share(spec, "maxUnavailable"),
        number(child(one, "status"), "disruptionsAllowed"),
        age(one, now_s),
    ]


def _subjects(binding: Object, kind: str) -> str:
    said = []
    for subject in children(binding, "subjects"):
        if subject.get("kind") == kind:
            namespace = text(subject, "namespace") if kind == "ServiceAccount" else ""
            name = text(subject, "name")
            said.append(f"{namespace}/{name}" if namespace else name)
    return ", ".join(said)


def _role_binding(one: Object, now_s: float) -> list[Cell]:
    role = child(one, "roleRef")
    return [
        name_of(one),
        f"{text(role, 'kind')}/{text(role, 'name')}",
        age(one, now_s),
        *(_subjects(one, kind) for kind in ("User", "Group", "ServiceAccount")),
    ]


def _created(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), text(child(one, "metadata"), "creationTimestamp")]


#: Of types that have no columns of their own in an API server either: a time, no age.
_CREATED = Columns(
    (NAME, Column("Created At", "When the object was created.", type="date")), _created, ()
)

_BINDINGS = Columns(
    (
        NAME,
        Column("Role", "The role that is given."),
        AGE,
        wide("Users", "Users that it is given to."),
        wide("Groups", "Groups that it is given to."),
        wide("ServiceAccounts", "Service accounts that it is given to."),
    ),
    _role_binding,
    ("roleRef", "subjects"),
)

OTHERS: Registry = {
    ("networking.k8s.io", "ingresses"): Columns(
        (
            NAME,
            Column("Class", "The class of controllers that serve it."),
            Column("Hosts", "Hosts that its rules are for."),
            Column("Address", "Where it is reached."),
            Column("Ports", "Ports that it is reached at."),
            AGE,
        ),
        _ingress,
    ),
    ("networking.k8s.io", "ingressclasses"): Columns(
        (
            NAME,
            Column("Controller", "Who serves the ingresses of this class."),
            Column("Parameters", "An object that configures the class."),
            AGE,
        ),
        _ingress_class,
    ),
    ("networking.k8s.io", "networkpolicies"): Columns(
        (NAME, Column("Pod-Selector", "Labels of the pods that it is for."), AGE), _network_policy
    ),
    ("discovery.k8s.io", "endpointslices"): Columns(
        (
            NAME,
            Column("AddressType", "What its addresses are."),
            Column("Ports", "Ports of every endpoint."),
            Column("Endpoints", "Addresses of the endpoints."),
            AGE,
        ),
        _endpoint_slice,
        ("addressType", "ports", "endpoints"),
    ),
    ("storage.k8s.io", "storageclasses"): Columns(
        (
            NAME,
            Column("Provisioner", "Who makes its volumes."),
            Column("ReclaimPolicy", "What becomes of its volumes once they are released."),
            Column("VolumeBindingMode", "When its claims are bound."),
            Column("AllowVolumeExpansion", "Whether its volumes can grow."),
            AGE,
        ),
        _storage_class,
        ("provisioner", "reclaimPolicy", "volumeBindingMode", "allowVolumeExpansion"),
    ),
    ("scheduling.k8s.io", "priorityclasses"): Columns(
        (
            NAME,
            integer("Value", "The higher, the sooner its pods are scheduled."),
            Column("Global-Default", "Whether pods without a class get this.", type="boolean"),
            AGE,
            Column("PreemptionPolicy", "Whether its pods may displace others."),
        ),
        _priority_class,
        ("value", "globalDefault", "preemptionPolicy"),
    ),
    ("coordination.k8s.io", "leases"): Columns(
        (NAME, Column("Holder", "Who holds it."), AGE), _lease
    ),
    ("policy", "poddisruptionbudgets"): Columns(
        (
            NAME,
            Column("Min Available", "Pods that have to stay."),
            Column("Max Unavailable", "Pods that may be gone."),
            integer("Allowed Disruptions", "Pods that may be evicted now."),
            AGE,
        ),
        _budget,
    ),
    ("rbac.authorization.k8s.io", "rolebindings"): _BINDINGS,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _BINDINGS,
    ("rbac.authorization.k8s.io", "roles"): _CREATED,
    ("rbac.authorization.k8s.io", "clusterroles"): _CREATED,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _CREATED,
}

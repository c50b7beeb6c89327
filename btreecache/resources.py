"""Resources: what the Kubernetes types are called and where an API server keeps them in etcd.

Facts of the API (names, scope, versions) and of kube-apiserver's storage (prefixes), as one table.
Built-in types lie under their plural alone, a few under an older name of theirs (nodes are
minions); those of apiextensions and apiregistration and all custom resources under group and
plural.
Versions are those that any supported server serves, preferred first; which of them an object is
stored in is for the object to say. Types that are never stored (bindings, reviews) are not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from btreecache.errors import BadRequest

#: What this project can do with any resource, in the order of discovery.
VERBS = ("get", "list", "watch")

DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SPEC = re.compile(
    rf"(?:(?P<group>{DNS_LABEL}(?:\.{DNS_LABEL})*)?/)?(?P<version>{DNS_LABEL})/"
    rf"(?P<plural>{DNS_LABEL}):(?P<kind>[A-Z][A-Za-z0-9]{{0,62}})"
    r"(?::(?P<scope>namespaced|cluster))?(?:=(?P<prefix>/.*))?"
)


class PrinterColumn(NamedTuple):
    """A column that a definition declares: what a JSON path finds, shown as a type."""

    name: str
    type: str
    path: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Custom:
    """What the definition of a custom resource says (definitions.py), and no code does.

    renamed      its versions, served or not, if they differ by apiVersion alone: objects stored as
                 one may be served as any other
    columns      by version; none: Name and Age
    selectable   the fields that selectors may name, as JSON paths
    """

    singular: str
    list_kind: str
    renamed: tuple[str, ...] = ()
    columns: tuple[tuple[str, tuple[PrinterColumn, ...]], ...] = ()
    selectable: tuple[str, ...] = ()

    def columns_of(self, version: str) -> tuple[PrinterColumn, ...]:
        """What it declares in a version."""
        return dict(self.columns).get(version, ())


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one API group.

    group        empty for the core group
    versions     preferred first
    storage      where its keys are: below the root, or from the top if it begins with a slash
    custom       of a resource that a CustomResourceDefinition makes
    """

    group: str
    plural: str
    kind: str
    namespaced: bool
    versions: tuple[str, ...]
    storage: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    custom: Custom | None = None

    @property
    def singular(self) -> str:
        """As servers since 1.27 say it and clients accept it: the kind in lower case."""
        return self.custom.singular if self.custom else self.kind.lower()

    @property
    def dotted(self) -> str:
        """As people tell it from its namesakes: plural.group, `pods` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        """The kind of its lists."""
        return self.custom.list_kind if self.custom else f"{self.kind}List"

    def prefix(self, root: bytes = b"/registry") -> bytes:
        """The etcd prefix of all its keys, which ends with a slash."""
        if self.storage.startswith("/"):
            return self.storage.rstrip("/").encode() + b"/"
        return root.rstrip(b"/") + b"/" + self.storage.encode() + b"/"

    def key(self, namespace: str, name: str, root: bytes = b"/registry") -> bytes:
        """The etcd key of one object; `namespace` is ignored for cluster-scoped resources."""
        where = f"{namespace}/{name}" if self.namespaced else name
        return self.prefix(root) + where.encode()

    def group_version(self, version: str) -> str:
        """As in apiVersion: `v1`, `apps/v1`."""
        return f"{self.group}/{version}" if self.group else version


def parse_resource(text: str) -> Resource:
    """`group/version/plural:Kind[:namespaced]=prefix`, as in `--resource`.

    The core group is left out (`v1/pods:Pod`) or empty. Without `:namespaced` (or with `:cluster`)
    the resource is cluster-scoped; without a prefix it lies where custom resources do, under
    group/plural. Raises BadRequest.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise BadRequest(
            f"resource {text!r}: must be group/version/plural:Kind[:namespaced]=/prefix"
        )
    group = match["group"] or ""
    prefix = match["prefix"] or (f"{group}/{match['plural']}" if group else match["plural"])
    if not prefix.strip("/") or "//" in prefix or {".", ".."} & set(prefix.split("/")):
        raise BadRequest(f"resource {text!r}: {prefix!r} is no prefix of etcd keys")
    return Resource(
        group, match["plural"], match["kind"], match["scope"] == "namespaced",
        (match["version"],), prefix,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resources:
    """A set of resources, looked up as requests and people name them. Immutable."""

    all: tuple[Resource, ...]
    _by_version: dict[tuple[str, str, str], Resource] = field(init=False, repr=False, compare=False)
    _by_name: dict[tuple[str, str], Resource] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table: dict[tuple[str, str, str], Resource] = {}
        for resource in self.all:
            for version in resource.versions:
                path = resource.group, version, resource.plural
                if path in table:
                    raise BadRequest(f"resource {'/'.join(path)} is declared twice")
                table[path] = resource
        object.__setattr__(self, "_by_version", table)
        object.__setattr__(self, "_by_name", {(one.group, one.plural): one for one in self.all})

    def find(self, group: str, plural: str) -> Resource | None:
        """The resource of a group, in whatever versions. O(1)."""
        return self._by_name.get((group, plural))

    def get(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource of a request's path; None if there is none. O(1)."""
        return self._by_version.get((group, version, plural))

    def named(self, name: str) -> Resource | None:
        """By what people call it: plural, singular, short name, or plural.group. O(resources).

        Where several groups have it (events), the first of the table, which is the older one.
        """
        plural, _, group = name.lower().partition(".")
        for resource in self.all:
            if group and resource.group != group:
                continue
            if plural in (resource.plural, resource.singular, *resource.short_names):
                return resource
        return None

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Every group with its versions, preferred first, in the order of the table."""
        found: dict[str, dict[str, None]] = {}
        for resource in self.all:
            found.setdefault(resource.group, {}).update(dict.fromkeys(resource.versions))
        return {group: by_preference(versions) for group, versions in found.items()}

    def of(self, group: str, version: str) -> Iterator[Resource]:
        """The resources of one group version, by plural."""
        found = [one for one in self.all if one.group == group and version in one.versions]
        return iter(sorted(found, key=lambda one: one.plural))

    def extended(self, more: Iterable[Resource]) -> Resources:
        """These and more. A declared one replaces a built-in one of its group and plural.

        Raises BadRequest for two of the same path among `more`.
        """
        added = tuple(more)
        taken = {(one.group, one.plural) for one in added}
        kept = (one for one in self.all if (one.group, one.plural) not in taken)
        return Resources((*kept, *added))


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def by_preference(versions: Iterable[str]) -> tuple[str, ...]:
    """Versions as Kubernetes prefers them. O(n log n)."""
    return tuple(sorted(versions, key=_rank))


def _rank(version: str) -> tuple[int, int, int, str]:
    """Sort key of versions as Kubernetes prefers them: GA before beta before alpha, newer first."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return 3, 0, 0, version
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return stage, -int(match[1]), -int(match[3] or 0), version


def _read(table: str) -> Iterator[Resource]:
    group = ""
    for line in table.splitlines():
        words = line.split()
        if len(words) == 1:
            group = "" if words[0] == "core" else words[0]
        elif words:
            plural, kind, scope, versions, storage, *rest = words
            short = rest[0] if rest and rest[0] != "-" else ""
            yield Resource(
                group, plural, kind, scope == "N", tuple(versions.split(",")),
                {"=": plural, "+": f"{group}/{plural}"}.get(storage, storage),
                tuple(short.split(",")) if short else (),
                tuple(rest[1].split(",")) if len(rest) > 1 else (),
            )  # fmt: skip


#: plural, kind, scope (Namespaced or Cluster), versions, storage (= is the plural, + group and
#: plural), short names, categories; a line of one word begins a group.
_TABLE = """
core
  configmaps ConfigMap N v1 = cm
  endpoints Endpoints N v1 services/endpoints ep
  events Event N v1 = ev
  limitranges LimitRange N v1 = limits
  namespaces Namespace C v1 = ns
  nodes Node C v1 minions no
  persistentvolumeclaims PersistentVolumeClaim N v1 = pvc
  persistentvolumes PersistentVolume C v1 = pv
  pods Pod N v1 = po all
  podtemplates PodTemplate N v1 =
  replicationcontrollers ReplicationController N v1 controllers rc all
  resourcequotas ResourceQuota N v1 = quota
  secrets Secret N v1 =
  serviceaccounts ServiceAccount N v1 = sa
  services Service N v1 services/specs svc all
apps
  controllerrevisions ControllerRevision N v1 =
  daemonsets DaemonSet N v1 = ds all
  deployments Deployment N v1 = deploy all
  replicasets ReplicaSet N v1 = rs all
  statefulsets StatefulSet N v1 = sts all
batch
  cronjobs CronJob N v1,v1beta1 = cj all
  jobs Job N v1 = - all
autoscaling
  horizontalpodautoscalers HorizontalPodAutoscaler N v2,v1 = hpa all
policy
  poddisruptionbudgets PodDisruptionBudget N v1,v1beta1 = pdb
rbac.authorization.k8s.io
  clusterrolebindings ClusterRoleBinding C v1 =
  clusterroles ClusterRole C v1 =
  rolebindings RoleBinding N v1 =
  roles Role N v1 =
networking.k8s.io
  ingressclasses IngressClass C v1 =
  ingresses Ingress N v1 ingress ing
  ipaddresses IPAddress C v1,v1beta1 = ip
  networkpolicies NetworkPolicy N v1 = netpol
  servicecidrs ServiceCIDR C v1,v1beta1 =
storage.k8s.io
  csidrivers CSIDriver C v1 =
  csinodes CSINode C v1 =
  csistoragecapacities CSIStorageCapacity N v1,v1beta1 =
  storageclasses StorageClass C v1 = sc
  volumeattachments VolumeAttachment C v1 =
  volumeattributesclasses VolumeAttributesClass C v1,v1beta1 = vac
coordination.k8s.io
  leasecandidates LeaseCandidate N v1beta1,v1alpha2 =
  leases Lease N v1 =
discovery.k8s.io
  endpointslices EndpointSlice N v1,v1beta1 =
events.k8s.io
  events Event N v1,v1beta1 = ev
admissionregistration.k8s.io
  mutatingadmissionpolicies MutatingAdmissionPolicy C v1,v1beta1,v1alpha1 =
  mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding C v1,v1beta1,v1alpha1 =
  mutatingwebhookconfigurations MutatingWebhookConfiguration C v1 =
  validatingadmissionpolicies ValidatingAdmissionPolicy C v1,v1beta1 =
  validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C v1,v1beta1 =
  validatingwebhookconfigurations ValidatingWebhookConfiguration C v1 =
scheduling.k8s.io
  priorityclasses PriorityClass C v1 = pc
certificates.k8s.io
  certificatesigningrequests CertificateSigningRequest C v1,v1beta1 = csr
  clustertrustbundles ClusterTrustBundle C v1beta1,v1alpha1 =
  podcertificaterequests PodCertificateRequest N v1beta1 =
flowcontrol.apiserver.k8s.io
  flowschemas FlowSchema C v1,v1beta3,v1beta2,v1beta1 =
  prioritylevelconfigurations PriorityLevelConfiguration C v1,v1beta3,v1beta2,v1beta1 =
node.k8s.io
  runtimeclasses RuntimeClass C v1,v1beta1 =
resource.k8s.io
  deviceclasses DeviceClass C v1,v1beta2,v1beta1 =
  devicetaintrules DeviceTaintRule C v1beta2,v1alpha3 =
  resourceclaims ResourceClaim N v1,v1beta2,v1beta1 =
  resourceclaimtemplates ResourceClaimTemplate N v1,v1beta2,v1beta1 =
  resourceslices ResourceSlice C v1,v1beta2,v1beta1 =
storagemigration.k8s.io
  storageversionmigrations StorageVersionMigration C v1beta1 =
internal.apiserver.k8s.io
  storageversions StorageVersion C v1alpha1 =
apiextensions.k8s.io
  customresourcedefinitions CustomResourceDefinition C v1 + crd,crds api-extensions
apiregistration.k8s.io
  apiservices APIService C v1,v1beta1 + - api-extensions
"""

#: Every type that kube-apiserver stores.
BUILT_IN = Resources(tuple(_read(_TABLE)))

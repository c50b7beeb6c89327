"""The `cluster` profile: a small cluster to look at, which makes sense whenever one looks.

Every object that a reference names is there, or was when it was written: namespaces, nodes and
their leases, deployments with their replica sets, pods and services, and events about pods. What
happens is what controllers do, a write at a time: deployments roll out new images, pod by pod;
they are scaled; containers run out of memory and start again; nodes send heartbeats.

It is no load: for that there is `kubernetes`. It isn't among the profiles that tests draw from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from etcdsim import cluster_objects as made
from etcdsim import objects
from etcdsim.clock import VirtualClock
from etcdsim.model import Model
from etcdsim.objects import NAMES
from etcdsim.prng import Prng
from etcdsim.profile import Profile

#: Objects of a deployment, about, with what is around it; and deployments of a namespace.
OBJECTS_A_DEPLOYMENT, DEPLOYMENTS_A_NAMESPACE = 12, 3

#: Namespaces that every cluster has.
SYSTEM = ("default", "kube-node-lease", "kube-system")

#: Replica sets of old images that a deployment keeps, and events of the cluster.
HISTORY, EVENTS_MAX = 2, 200

#: Rollouts that may be under way at a time.
ROLLOUTS_MAX = 2

#: What a controller writes, a write each time it is advanced: its revision.
Writes = Iterator[int]


@dataclass(slots=True)
class _Node:
    name: str
    uid: str
    created: str
    number: int


@dataclass(slots=True)
class _Pod:
    name: str
    uid: str
    created: str
    image: str
    node: str = ""
    address: str = ""
    since: str = ""
    running: bool = False
    ready: bool = False
    restarts: int = 0
    deleted: str = ""


@dataclass(slots=True)
class _ReplicaSet:
    name: str
    uid: str
    created: str
    hash: str
    image: str
    revision: int
    wanted: int = 0
    pods: list[_Pod] = field(default_factory=list)

    @property
    def ready(self) -> int:
        return sum(pod.ready and not pod.deleted for pod in self.pods)


@dataclass(slots=True)
class _Deployment:
    name: str
    namespace: str
    uid: str
    created: str
    app: str
    replicas: int
    version: int = 0
    generation: int = 1
    sets: list[_ReplicaSet] = field(default_factory=list)
    busy: bool = False

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.app, "app.kubernetes.io/instance": self.name}


class Cluster(Profile):
    """A step costs the encoding of one small object."""

    name = "cluster"

    def __init__(self, prng: Prng, clock: VirtualClock) -> None:
        super().__init__(prng, clock)
        self._nodes: list[_Node] = []
        self._deployments: list[_Deployment] = []
        self._events: deque[bytes] = deque()
        self._under_way: list[tuple[_Deployment, Writes]] = []
        self._next_lease = 0

    # Load

    def load(self, model: Model, objects: int) -> None:
        for name in SYSTEM:
            self._put_namespace(model, name)
        for number in range(max(1, objects // 40)):
            node = _Node(f"node-{number + 1}", self._uid(), self._now, number)
            self._nodes.append(node)
            self._put_node(model, node)
            self._put_lease(model, node)
        count = max(1, objects // OBJECTS_A_DEPLOYMENT)
        for number in range(count):
            namespace = f"team-{number // DEPLOYMENTS_A_NAMESPACE + 1}"
            if number % DEPLOYMENTS_A_NAMESPACE == 0:
                self._put_namespace(model, namespace)
            app = NAMES[number % len(NAMES)]
            deployment = _Deployment(
                app, namespace, self._uid(), self._now, app, 2 + self.prng.below(4)
            )
            self._deployments.append(deployment)
            for _ in self._deploy(model, deployment):
                self.clock.advance(self.prng.below(50))

    def _put_namespace(self, model: Model, name: str) -> None:
        metadata = made.meta(
            name, self._uid(), self._now, labels={"kubernetes.io/metadata.name": name}
        )
        model.put(
            f"/registry/namespaces/{name}".encode(),
            made.stored("v1", "Namespace", metadata, spec={"finalizers": ["kubernetes"]},
                        status={"phase": "Active"}),
        )  # fmt: skip

    # Steps

    def step(self, model: Model) -> None:
        self.clock.advance(self.prng.below(20))
        draw = self.prng.below(8)
        if draw < 5 and (self._under_way or self._begin(model)):
            self._go_on(model)
        elif draw < 7:
            node = self._nodes[self._next_lease % len(self._nodes)]
            self._next_lease += 1
            self._put_lease(model, node)
        else:
            self._put_node(model, self.prng.choice(self._nodes))

    def _begin(self, model: Model) -> bool:
        """Begin what a deployment goes through next, in most cases a rollout."""
        while len(self._under_way) < ROLLOUTS_MAX:
            deployment = self.prng.choice(self._deployments)
            if deployment.busy:
                break
            deployment.busy = True
            draw = self.prng.below(8)
            if draw < 4:
                writes = self._deploy(model, deployment)
            elif draw < 6:
                writes = self._scale(model, deployment)
            else:
                writes = self._restart(model, deployment)
            self._under_way.append((deployment, writes))
        return bool(self._under_way)

    def _go_on(self, model: Model) -> None:
        """The next write of something that is under way; a heartbeat where that has ended."""
        place = self.prng.below(len(self._under_way))
        deployment, writes = self._under_way[place]
        if next(writes, None) is None:
            deployment.busy = False
            del self._under_way[place]
            self._put_node(model, self.prng.choice(self._nodes))

    # What controllers do, a write at a time.

    def _deploy(self, model: Model, deployment: _Deployment) -> Writes:
        """Roll a new image out: a pod of the new one for each of the old one."""
        deployment.version += 1
        deployment.generation += 1
        image = f"registry.example.com/{deployment.app}:v1.{deployment.version}.0"
        digest = objects.name_part(self.prng, 10)
        new = _ReplicaSet(
            f"{deployment.name}-{digest}", self._uid(), self._now, digest, image, deployment.version
        )
        old = deployment.sets
        deployment.sets = [*old, new]
        yield self._put_deployment(model, deployment)
        if deployment.version == 1:
            yield self._put_service(model, deployment)
        while new.wanted < deployment.replicas:
            new.wanted += 1
            yield self._put_set(model, deployment, new)
            yield from self._start(model, deployment, new)
            for one in old:
                if one.pods:
                    one.wanted -= 1
                    yield self._put_set(model, deployment, one)
                    yield from self._end(model, deployment, one)
                    break
            yield self._put_deployment(model, deployment)
        yield from self._settle(model, deployment)

    def _settle(self, model: Model, deployment: _Deployment) -> Writes:
        """End what is one too many, and forget old replica sets."""
        for one in deployment.sets[:-1]:
            while one.pods:
                one.wanted = len(one.pods) - 1
                yield from self._end(model, deployment, one)
                yield self._put_set(model, deployment, one)
        while len(deployment.sets) > HISTORY + 1:
            gone = deployment.sets.pop(0)
            yield self._delete(model, f"replicasets/{deployment.namespace}/{gone.name}")
        yield self._put_deployment(model, deployment)

    def _scale(self, model: Model, deployment: _Deployment) -> Writes:
        """To another number of pods."""
        current, before = deployment.sets[-1], deployment.replicas
        deployment.replicas = 1 + (before + self.prng.below(4)) % 6
        deployment.generation += 1
        yield self._put_deployment(model, deployment)
        current.wanted = deployment.replicas
        yield self._put_set(model, deployment, current)
        while len(current.pods) < current.wanted:
            yield from self._start(model, deployment, current)
        while len(current.pods) > current.wanted:
            yield from self._end(model, deployment, current)
        yield self._put_set(model, deployment, current)
        yield self._put_deployment(model, deployment)

    def _restart(self, model: Model, deployment: _Deployment) -> Writes:
        """A container runs out of memory, and is started again."""
        current = deployment.sets[-1]
        pod = self.prng.choice(current.pods)
        for ready in (False, True):
            pod.ready, pod.since = ready, self._now
            pod.restarts += not ready
            yield self._put_pod(model, deployment, current, pod)
            yield self._put_set(model, deployment, current)
            yield self._put_deployment(model, deployment)

    def _start(self, model: Model, deployment: _Deployment, of: _ReplicaSet) -> Writes:
        """A pod from nothing to ready, with what is said of it."""
        name = f"{of.name}-{objects.name_part(self.prng, 5)}"
        pod = _Pod(name, self._uid(), self._now, of.image)
        of.pods.append(pod)
        yield self._put_pod(model, deployment, of, pod)
        node = self.prng.choice(self._nodes)
        pod.node, pod.since = node.name, self._now
        pod.address = f"10.244.{node.number % 250}.{2 + self.prng.below(250)}"
        yield self._put_pod(model, deployment, of, pod)
        said = f"Successfully assigned {deployment.namespace}/{name} to {node.name}"
        yield from self._event(model, deployment, pod, "Scheduled", said, "default-scheduler")
        pod.running, pod.since = True, self._now
        yield self._put_pod(model, deployment, of, pod)
        started = f"Started container {deployment.app}"
        yield from self._event(model, deployment, pod, "Started", started, "kubelet")
        pod.ready, pod.since = True, self._now
        yield self._put_pod(model, deployment, of, pod)
        yield self._put_set(model, deployment, of)

    def _end(self, model: Model, deployment: _Deployment, of: _ReplicaSet) -> Writes:
        """The oldest pod terminates, and is gone."""
        pod = of.pods[0]
        pod.deleted, pod.ready = self._now, False
        yield self._put_pod(model, deployment, of, pod)
        stopping = f"Stopping container {deployment.app}"
        yield from self._event(model, deployment, pod, "Killing", stopping, "kubelet")
        of.pods.pop(0)
        yield self._delete(model, f"pods/{deployment.namespace}/{pod.name}")
        yield self._put_set(model, deployment, of)

    # Writes: each makes one revision, and returns it.

    @property
    def _now(self) -> str:
        return objects.timestamp(self.clock.now_ms).decode()

    def _uid(self) -> str:
        return objects.uid(self.prng).decode()

    def _delete(self, model: Model, path: str) -> int:
        return model.delete_range(f"/registry/{path}".encode()).revision

    def _put_node(self, model: Model, node: _Node) -> int:
        body = made.node_body(node.name, node.uid, node.created, node.number, self._now)
        return model.put(f"/registry/minions/{node.name}".encode(), body).revision

    def _put_lease(self, model: Model, node: _Node) -> int:
        metadata = made.meta(
            node.name, node.uid[::-1], node.created, "kube-node-lease",
            ownerReferences=made.owner("v1", "Node", node.name, node.uid),
        )  # fmt: skip
        renewed = objects.micro_timestamp(self.clock.now_ms).decode()
        spec = {"holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": renewed}
        body = made.stored("coordination.k8s.io/v1", "Lease", metadata, spec=spec)
        return model.put(f"/registry/leases/kube-node-lease/{node.name}".encode(), body).revision

    def _put_service(self, model: Model, of: _Deployment) -> int:
        metadata = made.meta(of.name, self._uid(), of.created, of.namespace, labels=of.labels)
        address = f"10.96.{self.prng.below(250)}.{1 + self.prng.below(250)}"
        spec = {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "selector": of.labels, "sessionAffinity": "None",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        }  # fmt: skip
        return model.put(
            f"/registry/services/specs/{of.namespace}/{of.name}".encode(),
            made.stored("v1", "Service", metadata, spec=spec, status={"loadBalancer": {}}),
        ).revision

    def _put_deployment(self, model: Model, of: _Deployment) -> int:
        new, ready = of.sets[-1], sum(one.ready for one in of.sets)
        metadata = made.meta(
            of.name, of.uid, of.created, of.namespace, generation=of.generation, labels=of.labels,
            annotations={"deployment.kubernetes.io/revision": str(new.revision)},
        )  # fmt: skip
        template = {"metadata": {"labels": of.labels}, "spec": made.pod_spec(of.app, new.image, "")}
        status = {
            "observedGeneration": of.generation,
            "replicas": sum(len(one.pods) for one in of.sets),
            "updatedReplicas": len(new.pods), "readyReplicas": ready, "availableReplicas": ready,
            "conditions": [
                made.condition("Available", ready >= of.replicas, self._now),
                made.condition("Progressing", True, self._now, "ReplicaSetUpdated"),
            ],
        }  # fmt: skip
        spec = {
            "replicas": of.replicas, "selector": {"matchLabels": of.labels}, "template": template,
            "strategy": {"type": "RollingUpdate",
                         "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": HISTORY, "progressDeadlineSeconds": 600,
        }  # fmt: skip
        return model.put(
            f"/registry/deployments/{of.namespace}/{of.name}".encode(),
            made.stored("apps/v1", "Deployment", metadata, spec=spec, status=status),
        ).revision

    def _put_set(self, model: Model, deployment: _Deployment, of: _ReplicaSet) -> int:
        labels = deployment.labels | {"pod-template-hash": of.hash}
        metadata = made.meta(
            of.name, of.uid, of.created, deployment.namespace, labels=labels, generation=1,
            annotations={"deployment.kubernetes.io/revision": str(of.revision)},
            ownerReferences=made.owner("apps/v1", "Deployment", deployment.name, deployment.uid),
        )  # fmt: skip
        template = {
            "metadata": {"labels": labels},
            "spec": made.pod_spec(deployment.app, of.image, ""),
        }
        spec = {
            "replicas": of.wanted, "selector": {"matchLabels": labels}, "template": template,
        }  # fmt: skip
        status = {"replicas": len(of.pods), "readyReplicas": of.ready, "observedGeneration": 1}
        return model.put(
            f"/registry/replicasets/{deployment.namespace}/{of.name}".encode(),
            made.stored("apps/v1", "ReplicaSet", metadata, spec=spec, status=status),
        ).revision

    def _put_pod(self, model: Model, deployment: _Deployment, of: _ReplicaSet, pod: _Pod) -> int:
        metadata = made.meta(
            pod.name, pod.uid, pod.created, deployment.namespace, generateName=f"{of.name}-",
            labels=deployment.labels | {"pod-template-hash": of.hash},
            ownerReferences=made.owner("apps/v1", "ReplicaSet", of.name, of.uid),
            deletionTimestamp=pod.deleted,
        )  # fmt: skip
        status = made.pod_status(
            deployment.app, pod.image, pod.address, since=pod.since or pod.created,
            running=pod.running, ready=pod.ready, restarts=pod.restarts,
        )  # fmt: skip
        spec = made.pod_spec(deployment.app, pod.image, pod.node)
        return model.put(
            f"/registry/pods/{deployment.namespace}/{pod.name}".encode(),
            made.stored("v1", "Pod", metadata, spec=spec, status=status),
        ).revision

    def _event(
        self, model: Model, of: _Deployment, pod: _Pod, reason: str, message: str, component: str
    ) -> Writes:
        """Something is said of a pod; the oldest that was said is forgotten."""
        name = f"{pod.name}.{self.prng.next64():016x}"
        about = {
            "kind": "Pod", "apiVersion": "v1", "namespace": of.namespace, "name": pod.name,
            "uid": pod.uid,
        }  # fmt: skip
        metadata = made.meta(name, self._uid(), self._now, of.namespace)
        key = f"/registry/events/{of.namespace}/{name}".encode()
        self._events.append(key)
        body = made.event_body(metadata, about, reason, message, component, self._now)
        yield model.put(key, body).revision
        if len(self._events) > EVENTS_MAX:
            yield model.delete_range(self._events.popleft()).revision

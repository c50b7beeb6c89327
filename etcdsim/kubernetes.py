"""The `kubernetes` profile: what a busy cluster writes to etcd.

Keys are those of a real API server, nodes under `/registry/minions/`. Leases are renewed in turn
and make up most writes; pods change status, are rolled out and replaced; events come and expire in
batches, as the lease that many of them share runs out; now and then a namespace is emptied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

from etcdsim import objects
from etcdsim.clock import VirtualClock
from etcdsim.model import Model, prefix_end
from etcdsim.prng import Prng
from etcdsim.profile import Profile, Roster
from etcdsim.stored import Template
from etcdsim.txn import DeleteRange, Put

POOL_BYTES = 1 << 17

#: Where an API server keeps a custom resource: by group and plural.
BACKUPS = b"example.com/backups"

EVENT_SORTS = (
    ("Scheduled", "Successfully assigned $namespace$/$pod$ to $node$", "default-scheduler"),
    ("Pulled", "Container image already present on machine", "kubelet"),
    ("Created", "Created container main of pod $pod$", "kubelet"),
    ("Started", "Started container main of pod $pod$", "kubelet"),
    ("Killing", "Stopping container main of pod $pod$", "kubelet"),
)


@dataclass(slots=True)
class _Deployment:
    namespace: bytes
    prefix: bytes  # of the names of its pods
    template: Template


@dataclass(slots=True)
class _Node:
    name: bytes
    template: Template
    lease_key: bytes
    lease_template: Template


@dataclass(slots=True)
class _Pod:
    namespace: bytes
    name: bytes
    uid: bytes
    node: bytes
    template: Template
    restarts: int = 0


@dataclass(slots=True)
class _Config:
    """A ConfigMap, a Secret or a Backup."""

    template: Template
    serial: int = 1


@dataclass(frozen=True, slots=True)
class _Targets:
    """How many objects of each sort there are about: 1% nodes and as many leases, 10% ConfigMaps,
    10% Secrets, 4% Backups (which are custom resources), 34% events, the rest pods."""

    nodes: int
    configs: int
    backups: int
    events: int
    pods: int

    @classmethod
    def of(cls, count: int) -> _Targets:
        nodes = max(count // 100, 1 if count >= 3 else 0)
        configs, backups, events = count // 10, count // 25, count * 34 // 100
        pods = count - 2 * nodes - 2 * configs - backups - events
        return cls(nodes, configs, backups, events, pods)

    def configs_of(self, sort: bytes) -> int:
        """How many of a sort of `Kubernetes._configs`."""
        return self.backups if sort == BACKUPS else self.configs


class Kubernetes(Profile):
    """A step costs one put of ready bytes, hardly ever more: about as much as the put itself."""

    name = "kubernetes"

    def __init__(self, prng: Prng, clock: VirtualClock) -> None:
        super().__init__(prng, clock)
        self._pods: Roster[_Pod] = Roster()
        self._configs: dict[bytes, Roster[_Config]] = {
            b"configmaps": Roster(),
            b"secrets": Roster(),
            BACKUPS: Roster(),
        }
        self._config_templates: dict[bytes, Template] = {
            b"configmaps": objects.config_map_template(),
            b"secrets": objects.secret_template(),
            BACKUPS: objects.backup_template(),
        }
        self._nodes: list[_Node] = []
        self._next_lease = 0
        self._events: deque[bytes] = deque()  # keys, oldest first
        self._event_templates = [objects.event_template(*sort) for sort in EVENT_SORTS]
        self._batch = 1  # how many events expire together next time
        self._pool = objects.text_pool(prng.fork("pool"), POOL_BYTES)
        self._actions = self._weigh()

    def _weigh(self) -> list[Callable[[Model], object]]:
        weights: list[tuple[int, Callable[[Model], object]]] = [
            (434, self._renew_lease),
            (185, self._update_pod),
            (150, self._event),
            (120, self._roll_out),
            (30, self._update_node),
            (20, lambda model: self._write_config(model, b"configmaps")),
            (15, lambda model: self._write_config(model, b"secrets")),
            (5, lambda model: self._write_config(model, BACKUPS)),
            (40, self._transact),
            (1, self._empty_namespace),
        ]
        return [action for weight, action in weights for _ in range(weight)]

    # Load

    def load(self, model: Model, objects: int) -> None:
        self._targets = _Targets.of(objects)
        self._make_deployments(max(1, isqrt(objects)))
        for number in range(self._targets.nodes):
            self._load_node(model, number)
        for _ in range(self._targets.pods):
            key, value = self._new_pod()
            model.put(key, value)
            self.clock.advance(1)
        for sort in self._configs:
            for _ in range(self._targets.configs_of(sort)):
                self._create_config(model, sort)
        for _ in range(self._targets.events):
            self._create_event(model)

    def _make_deployments(self, namespaces: int) -> None:
        prng = self.prng.fork("deployments")
        self._namespaces = [
            f"{prng.choice(objects.NAMES)}-{number:03d}".encode() for number in range(namespaces)
        ]
        self._deployments = []
        for namespace in self._namespaces:
            for _ in range(1 + prng.below(4)):
                app, revision = prng.choice(objects.NAMES), objects.name_part(prng, 10)
                owner = f"{app}-{prng.choice(('blue', 'canary', 'green', 'main'))}"
                template = objects.pod_template(prng, app, owner, revision)
                prefix = f"{owner}-{revision}-".encode()
                self._deployments.append(_Deployment(namespace, prefix, template))

    def _load_node(self, model: Model, number: int) -> None:
        name, node_uid = b"node-%05d" % number, objects.uid(self.prng)
        created = objects.timestamp(self.clock.now_ms)
        fields = {
            b"name": name, b"uid": node_uid, b"created": created,
            b"address": b"10.0.%d.%d" % (number >> 8 & 255, number & 255),
        }  # fmt: skip
        template = objects.node_template(self.prng).fill(fields)
        lease_fields = {
            b"name": name, b"namespace": b"kube-node-lease", b"uid": objects.uid(self.prng),
            b"created": created, b"node_uid": node_uid,
        }  # fmt: skip
        lease_template = objects.lease_template().fill(lease_fields)
        node = _Node(name, template, b"/registry/leases/kube-node-lease/" + name, lease_template)
        self._nodes.append(node)
        self._put_node(model, node)
        self._put_lease(model, node)
        self.clock.advance(2)

    # Steps

    def step(self, model: Model) -> None:
        ms, action = divmod(self.prng.below(80 * len(self._actions)), len(self._actions))
        self.clock.advance(ms)
        self._actions[action](model)

    def _put_node(self, model: Model, node: _Node) -> None:
        heartbeat = {b"heartbeat": objects.timestamp(self.clock.now_ms)}
        model.put(b"/registry/minions/" + node.name, node.template % heartbeat)

    def _put_lease(self, model: Model, node: _Node) -> None:
        renewed = {b"renewed": objects.micro_timestamp(self.clock.now_ms)}
        model.put(node.lease_key, node.lease_template % renewed)

    def _renew_lease(self, model: Model) -> None:
        if not self._nodes:
            return self._update_pod(model)
        node = self._nodes[self._next_lease]
        self._next_lease = (self._next_lease + 1) % len(self._nodes)
        return self._put_lease(model, node)

    def _update_node(self, model: Model) -> None:
        if not self._nodes:
            return self._update_pod(model)
        return self._put_node(model, self.prng.choice(self._nodes))

    def _new_pod(self) -> tuple[bytes, bytes]:
        prng, deployment = self.prng, self.prng.choice(self._deployments)
        name = deployment.prefix + objects.name_part(prng, 5).encode()
        key = b"/registry/pods/%b/%b" % (deployment.namespace, name)
        node = prng.choice(self._nodes).name if self._nodes else b"node-00000"
        pod_uid, place = objects.uid(prng), prng.below(1 << 16)
        fields = {
            b"name": name, b"namespace": deployment.namespace, b"uid": pod_uid, b"node": node,
            b"created": objects.timestamp(self.clock.now_ms),
            b"address": b"10.244.%d.%d" % (place >> 8, place & 255),
            b"container": prng.bytes(32).hex().encode(),
        }  # fmt: skip
        template = deployment.template.fill(fields)
        pod = _Pod(deployment.namespace, name, pod_uid, node, template)
        self._pods.add(key, pod)
        return key, self._pod_value(pod, is_ready=False)

    def _pod_value(self, pod: _Pod, is_ready: bool) -> bytes:
        fields = {
            b"phase": b"Running" if is_ready or pod.restarts else b"Pending",
            b"changed": objects.timestamp(self.clock.now_ms),
            b"ready": b"True" if is_ready else b"False",
            b"is_ready": b"true" if is_ready else b"false",
            b"restarts": b"%d" % pod.restarts,
        }
        return pod.template % fields

    def _changed_pod(self, pod: _Pod) -> bytes:
        draw = self.prng.below(16)
        if draw == 0:
            pod.restarts += 1
        return self._pod_value(pod, is_ready=draw > 3)

    def _update_pod(self, model: Model) -> None:
        if not self._pods:
            return self._roll_out(model)
        key, pod = self._pods.pick(self.prng)
        model.put(key, self._changed_pod(pod))
        return None

    def _roll_out(self, model: Model) -> None:
        """Create or delete a pod, towards the target; several at once when many are missing."""
        missing = self._targets.pods - len(self._pods)
        if missing > 8:
            new = [Put(*self._new_pod()) for _ in range(2 + self.prng.below(7))]
            # A name that came up twice would be refused; the later pod is the one that counts.
            model.txn((), list({put.key: put for put in new}.values()))
        elif missing > 0 or not self._pods or (missing == 0 and self.prng.chance(0.5)):
            model.put(*self._new_pod())
        else:
            key, _ = self._pods.pick(self.prng)
            self._pods.discard(key)
            model.delete_range(key)

    def _event(self, model: Model) -> None:
        """Create an event, or expire a batch of them: etcd deletes all keys of a lease at once."""
        if not self._targets.events:
            return self._update_pod(model)
        if len(self._events) < self._targets.events + self._batch:
            return self._create_event(model)
        model.delete_keys([self._events.popleft() for _ in range(self._batch)])
        self._batch = 1 + self.prng.below(min(16, 1 + self._targets.events // 4))
        return None

    def _create_event(self, model: Model) -> None:
        if not self._pods:
            return self._roll_out(model)
        prng, (_, pod) = self.prng, self._pods.pick(self.prng)
        name = b"%b.%016x" % (pod.name, prng.next64())
        key = b"/registry/events/%b/%b" % (pod.namespace, name)
        fields = {
            b"name": name, b"namespace": pod.namespace, b"uid": objects.uid(prng),
            b"created": objects.timestamp(self.clock.now_ms), b"pod": pod.name,
            b"pod_uid": pod.uid, b"pod_revision": b"%d" % model.revision, b"node": pod.node,
        }  # fmt: skip
        self._events.append(key)
        model.put(key, prng.choice(self._event_templates) % fields)
        return None

    def _create_config(self, model: Model, sort: bytes) -> None:
        prng = self.prng
        # Each doubling is half as frequent: most are small, a few reach 32-64 KiB.
        size = 64 << min(9, _halvings(prng))
        size += prng.below(size)
        start = prng.below(POOL_BYTES - size)
        namespace = prng.choice(self._namespaces)
        name = f"{prng.choice(objects.NAMES)}-{objects.name_part(prng, 6)}".encode()
        fields = {
            b"name": name, b"namespace": namespace, b"uid": objects.uid(prng),
            b"created": objects.timestamp(self.clock.now_ms),
            b"data": self._pool[start : start + size],
        }  # fmt: skip
        key = b"/registry/%b/%b/%b" % (sort, namespace, name)
        config = _Config(self._config_templates[sort].fill(fields))
        self._configs[sort].add(key, config)
        model.put(key, config.template % {b"serial": b"1"})

    def _write_config(self, model: Model, sort: bytes) -> None:
        roster = self._configs[sort]
        if len(roster) < self._targets.configs_of(sort):
            return self._create_config(model, sort)
        if not roster:
            return self._update_pod(model)
        key, config = roster.pick(self.prng)
        config.serial += 1
        model.put(key, config.template % {b"serial": b"%d" % config.serial})
        return None

    def _transact(self, model: Model) -> None:
        """Several keys in one revision: a pod replaced, or the status of several pods."""
        if len(self._pods) < 2 or self.prng.chance(0.5):
            key, _ = self._pods.pick(self.prng) if self._pods else (b"", None)
            self._pods.discard(key)
            new_key, value = self._new_pod()
            delete = [DeleteRange(key)] if key and key != new_key else []
            model.txn((), [*delete, Put(new_key, value)])
            return
        pods = self._pods.pick_several(self.prng, 2 + self.prng.below(5))
        model.txn((), [Put(key, self._changed_pod(pod)) for key, pod in pods])

    def _empty_namespace(self, model: Model) -> None:
        """Delete every pod, ConfigMap, Secret and Backup of a namespace in one transaction."""
        if not self._pods:
            return self._roll_out(model)
        _, pod = self._pods.pick(self.prng)
        prefixes = [
            b"/registry/%b/%b/" % (sort, pod.namespace) for sort in (b"pods", *self._configs)
        ]
        before = model.revision
        model.txn((), [DeleteRange(prefix, prefix_end(prefix)) for prefix in prefixes])
        for record in model.records_at(before + 1):
            self._pods.discard(record.key)
            for roster in self._configs.values():
                roster.discard(record.key)
        return None


def _halvings(prng: Prng) -> int:
    """How often a coin comes up heads before it comes up tails: n with probability 2**-(n + 1)."""
    draw = prng.next64() | 1 << 63
    return (draw & -draw).bit_length() - 1

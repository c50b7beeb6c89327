"""Kubernetes objects as an API server stores them: built-in types as protobuf, others as JSON.

A body is written down once as a dict with marks in it, and made into a template for `%`, so that a
write splices a few fields into ready bytes instead of encoding an object:

    "$name$"   a field that is filled in when the object is made
    "@name@"   a field that every write of the object fills in
    "#name#"   the same for a number: the quotes go too

No body may hold a percent sign. Names and values are invented.
"""

from __future__ import annotations

import json
import re
from datetime import date
from functools import lru_cache
from typing import Any

from etcdsim.prng import Prng
from etcdsim.stored import Json, Template, compile_stored

Body = dict[str, Any]

# What Kubernetes draws the random parts of names from: no vowels, no words by accident.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_UNIX_EPOCH_DAY = date(1970, 1, 1).toordinal()

NAMES = (
    "api", "auth", "billing", "cart", "catalog", "checkout", "courier", "feed", "gateway", "images",
    "ledger", "mailer", "metrics", "orders", "payments", "pricing", "queue", "reports", "search",
    "sessions", "stock", "tracker", "users", "worker",
)  # fmt: skip


def compile_json(body: Body) -> Json:
    """The template of a custom resource."""
    text = json.dumps(body, separators=(",", ":")).encode() + b"\n"
    assert b"%" not in text
    text = re.sub(rb'"#(\w+)#"', rb"%%(\1)b", text)
    text = re.sub(rb"@(\w+)@", rb"%%(\1)b", text)
    return Json(re.sub(rb"\$(\w+)\$", rb"%(\1)b", text))


@lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    days, second = divmod(seconds, 86_400)
    day = date.fromordinal(_UNIX_EPOCH_DAY + days).isoformat()
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"{day}T{clock}Z".encode()


def timestamp(now_ms: int) -> bytes:
    """metav1.Time: whole seconds."""
    return _second(now_ms // 1000)


def micro_timestamp(now_ms: int) -> bytes:
    """metav1.MicroTime."""
    return b"%s.%03d000Z" % (timestamp(now_ms)[:-1], now_ms % 1000)


def uid(prng: Prng) -> bytes:
    """A UUID of version 4."""
    text = prng.bytes(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}".encode()


def name_part(prng: Prng, n: int) -> str:
    """`n` characters as Kubernetes appends them to a name (util/rand)."""
    draw = prng.next64()
    letters = []
    for _ in range(n):
        draw, index = divmod(draw, len(_NAME_ALPHABET))
        letters.append(_NAME_ALPHABET[index])
    return "".join(letters)


def text_pool(prng: Prng, n: int) -> bytes:
    """`n` characters of base64 that long values are cut from."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return prng.bytes(n).translate(bytes(alphabet[i & 63] for i in range(256)))


def _meta(namespaced: bool = True, **more: Any) -> Body:
    where = {"namespace": "$namespace$"} if namespaced else {}
    return {
        "name": "$name$", **where, "uid": "$uid$", "creationTimestamp": "$created$", **more,
    }  # fmt: skip


def lease_template() -> Template:
    """$name$ $uid$ $created$, @renewed@ (MicroTime)."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": "$name$", "uid": "$node_uid$"}
    return compile_stored(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": _meta(ownerReferences=[owner]),
            "spec": {
                "holderIdentity": "$name$",
                "leaseDurationSeconds": 40,
                "renewTime": "@renewed@",
            },
        }
    )


def _node_status(prng: Prng) -> Body:
    conditions = [
        {
            "type": kind,
            "status": "True" if kind == "Ready" else "False",
            "lastHeartbeatTime": "@heartbeat@",
            "lastTransitionTime": "$created$",
            "reason": f"Kubelet{reason}",
            "message": f"kubelet reports {reason}",
        }
        for kind, reason in (
            ("MemoryPressure", "HasSufficientMemory"),
            ("DiskPressure", "HasNoDiskPressure"),
            ("PIDPressure", "HasSufficientPID"),
            ("Ready", "Ready"),
        )
    ]
    images = []
    for _ in range(24 + prng.below(18)):
        image = f"registry.example.com/platform/{prng.choice(NAMES)}"
        size = 20_000_000 + prng.below(900_000_000)
        names = [f"{image}@sha256:{prng.bytes(32).hex()}", f"{image}:v1.{prng.below(90)}.0"]
        images.append({"names": names, "sizeBytes": size})
    resources = {"cpu": "8", "ephemeral-storage": "101430960Ki", "memory": "31458Mi", "pods": "110"}
    return {
        "capacity": resources,
        "allocatable": resources,
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": "$address$"},
            {"type": "Hostname", "address": "$name$"},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "kubeletVersion": "v1.34.1",
            "kernelVersion": "6.1.0-21-amd64",
            "osImage": "Debian GNU/Linux 12 (bookworm)",
            "containerRuntimeVersion": "containerd://1.7.18",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
        "images": images,
    }


def node_template(prng: Prng) -> Template:
    """$name$ $uid$ $created$ $address$, @heartbeat@. 5-8 KB, most of it names of images."""
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": "$name$",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "m5.2xlarge",
        "topology.kubernetes.io/zone": f"zone-{prng.below(3)}",
    }
    annotations = {
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    return compile_stored(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": _meta(namespaced=False, labels=labels, annotations=annotations),
            "spec": {"podCIDR": "10.244.0.0/24", "providerID": "sim:///$name$"},
            "status": _node_status(prng),
        }
    )


def _container(prng: Prng, app: str) -> Body:
    tag = f"v{prng.below(4)}.{prng.below(40)}.{prng.below(10)}"
    variables = [
        {"name": f"{prng.choice(NAMES).upper()}_URL", "value": f"http://{prng.choice(NAMES)}:8080"}
        for _ in range(2 + prng.below(14))
    ]
    pod_name = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}
    probe = {
        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    return {
        "name": app,
        "image": f"registry.example.com/platform/{app}:{tag}",
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": "POD_NAME", "valueFrom": pod_name}, *variables],
        "resources": {
            "limits": {"cpu": "1", "memory": "512Mi"},
            "requests": {"cpu": f"{50 + prng.below(20) * 10}m", "memory": "256Mi"},
        },
        "volumeMounts": [
            {
                "name": "kube-api-access",
                "readOnly": True,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            }
        ],
        "livenessProbe": probe,
        "readinessProbe": probe,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }


def _pod_spec(container: Body) -> Body:
    tolerations = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for taint in ("not-ready", "unreachable")
    ]
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt"}},
    ]
    return {
        "volumes": [
            {"name": "kube-api-access", "projected": {"sources": sources, "defaultMode": 420}}
        ],
        "containers": [container],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": container["name"],
        "nodeName": "$node$",
        "schedulerName": "default-scheduler",
        "tolerations": tolerations,
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _pod_status(container: Body, image_id: str) -> Body:
    conditions = [
        {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": when}
        for kind, status, when in (
            ("Initialized", "True", "$created$"),
            ("Ready", "@ready@", "@changed@"),
            ("ContainersReady", "@ready@", "@changed@"),
            ("PodScheduled", "True", "$created$"),
        )
    ]
    running = {
        "name": container["name"],
        "state": {"running": {"startedAt": "@changed@"}},
        "ready": "#is_ready#",
        "restartCount": "#restarts#",
        "image": container["image"],
        "imageID": f"sha256:{image_id}",
        "containerID": "containerd://$container$",
        "started": True,
    }
    return {
        "phase": "@phase@",
        "conditions": conditions,
        "hostIP": "10.0.0.1",
        "podIP": "$address$",
        "podIPs": [{"ip": "$address$"}],
        "startTime": "$created$",
        "containerStatuses": [running],
        "qosClass": "Burstable",
    }


def pod_template(prng: Prng, app: str, owner: str, owner_hash: str) -> Template:
    """Of the pods of one deployment: $name$ $namespace$ $uid$ $created$ $node$ $address$
    $container$, @phase@ @changed@ @ready@ (True, False) #is_ready# (true, false) #restarts#.
    About 2 KB."""
    container = _container(prng, app)
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{owner}-{owner_hash}",
        "uid": uid(prng).decode(),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/instance": owner,
        "pod-template-hash": owner_hash,
    }
    return compile_stored(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _meta(
                generateName=f"{owner}-{owner_hash}-",
                labels=labels,
                annotations={"checksum/config": prng.bytes(32).hex()},
                ownerReferences=[replica_set],
            ),
            "spec": _pod_spec(container),
            "status": _pod_status(container, prng.bytes(32).hex()),
        }
    )


def config_map_template() -> Template:
    """$name$ $namespace$ $uid$ $created$ $data$, @serial@. The data decides the size."""
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    return compile_stored(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _meta(labels=labels, annotations={"example.com/serial": "@serial@"}),
            "data": {"settings": "serial: @serial@", "blob": "$data$"},
        }
    )


def secret_template() -> Template:
    """$name$ $namespace$ $uid$ $created$ $data$, @serial@."""
    return compile_stored(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": _meta(annotations={"example.com/serial": "@serial@"}),
            "data": {"token": "$data$"},
            "type": "Opaque",
        }
    )


def backup_template() -> Template:
    """A custom resource: $name$ $namespace$ $uid$ $created$ $data$, @serial@."""
    return compile_json(
        {
            "apiVersion": "example.com/v1",
            "kind": "Backup",
            "metadata": _meta(generation=1),
            "spec": {"schedule": "0 3 * * *", "cursor": "$data$"},
            "status": {"completed": "#serial#"},
        }
    )


def event_template(reason: str, message: str, component: str) -> Template:
    """$name$ $namespace$ $uid$ $created$ $pod$ $pod_uid$ $node$; nothing changes later. ~400 B."""
    return compile_stored(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": _meta(),
            "involvedObject": {
                "kind": "Pod",
                "namespace": "$namespace$",
                "name": "$pod$",
                "uid": "$pod_uid$",
                "apiVersion": "v1",
                "resourceVersion": "$pod_revision$",
                "fieldPath": "spec.containers{main}",
            },
            "reason": reason,
            "message": message,
            "source": {"component": component, "host": "$node$"},
            "firstTimestamp": "$created$",
            "lastTimestamp": "$created$",
            "count": 1,
            "type": "Normal",
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": "$node$",
        }
    )

"""The objects of the `cluster` profile, in JSON, as an API server with JSON storage keeps them.

What a person sees of them with kubectl is right: who owns whom, what is ready, what is on its way.
"""

from __future__ import annotations

import json
from typing import Any

Body = dict[str, Any]


def stored(api_version: str, kind: str, metadata: Body, **members: Any) -> bytes:
    """An object as it lies in etcd."""
    body = {"kind": kind, "apiVersion": api_version, "metadata": metadata, **members}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def meta(name: str, uid: str, created: str, namespace: str = "", **more: Any) -> Body:
    """Metadata; what is empty is left out."""
    body = {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": created, **more}
    return {key: value for key, value in body.items() if value}


def owner(api_version: str, kind: str, name: str, uid: str) -> list[Body]:
    """ownerReferences: the one controller."""
    return [
        {
            "apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
            "controller": True, "blockOwnerDeletion": True,
        }
    ]  # fmt: skip


def condition(kind: str, true: bool, since: str, reason: str = "") -> Body:
    """One entry of status.conditions."""
    body = {"type": kind, "status": str(true), "lastTransitionTime": since, "reason": reason}
    return {key: value for key, value in body.items() if value}


def pod_spec(app: str, image: str, node: str) -> Body:
    """One container; on a node once it was scheduled."""
    container = {
        "name": app, "image": image,
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "imagePullPolicy": "IfNotPresent",
    }  # fmt: skip
    spec = {
        "containers": [container], "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "serviceAccountName": "default", "schedulerName": "default-scheduler",
    }  # fmt: skip
    return spec | ({"nodeName": node} if node else {})


def pod_status(
    app: str, image: str, address: str, *, since: str, running: bool, ready: bool, restarts: int
) -> Body:
    """Pending until its container runs. No address: it was not scheduled yet."""
    conditions = [
        condition("PodScheduled", bool(address), since),
        condition("Initialized", bool(address), since),
        condition("ContainersReady", ready, since),
        condition("Ready", ready, since),
    ]
    if not address:
        return {"phase": "Pending", "conditions": conditions[:1], "qosClass": "Burstable"}
    state = (
        {"running": {"startedAt": since}}
        if running
        else {"waiting": {"reason": "ContainerCreating"}}
    )
    container = {
        "name": app, "image": image, "imageID": "", "ready": ready, "started": running,
        "restartCount": restarts, "state": state,
    }  # fmt: skip
    if restarts:
        ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": since, "startedAt": since}
        container["lastState"] = {"terminated": ended}
    return {
        "phase": "Running" if running else "Pending",
        "conditions": conditions,
        "hostIP": "10.0.0.1",
        **({"podIP": address, "podIPs": [{"ip": address}]} if running else {}),
        "startTime": since,
        "containerStatuses": [container],
        "qosClass": "Burstable",
    }


def node_body(name: str, uid: str, created: str, number: int, heartbeat: str) -> bytes:
    """A node that is ready."""
    capacity = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    conditions = [
        condition(kind, kind == "Ready", created, f"Kubelet{reason}")
        | {"lastHeartbeatTime": heartbeat}
        for kind, reason in (
            ("MemoryPressure", "HasSufficientMemory"),
            ("DiskPressure", "HasNoDiskPressure"),
            ("Ready", "Ready"),
        )
    ]
    info = {
        "kubeletVersion": "v1.36.0", "kernelVersion": "6.12.0-amd64", "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 13 (trixie)", "architecture": "amd64",
        "containerRuntimeVersion": "containerd://2.1.0",
    }  # fmt: skip
    addresses = [
        {"type": "InternalIP", "address": f"10.0.0.{number % 250 + 1}"},
        {"type": "Hostname", "address": name},
    ]
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % 3}"}
    return stored(
        "v1", "Node", meta(name, uid, created, labels=labels),
        spec={"podCIDR": f"10.244.{number % 250}.0/24"},
        status={
            "capacity": capacity, "allocatable": capacity, "conditions": conditions,
            "addresses": addresses, "nodeInfo": info,
        },
    )  # fmt: skip


def event_body(
    metadata: Body, about: Body, reason: str, message: str, component: str, now: str
) -> bytes:
    """An Event about an object. `about`: its kind, apiVersion, namespace, name and uid."""
    return stored(
        "v1", "Event", metadata,
        involvedObject=about, reason=reason, message=message, type="Normal", count=1,
        source={"component": component}, firstTimestamp=now, lastTimestamp=now,
        reportingComponent=component, reportingInstance="",
    )  # fmt: skip

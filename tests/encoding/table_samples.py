"""Objects of many kinds and the cells that `kubectl get -o wide` shows for them: what a real API
server answered, and samples by hand.

NOW is the time that ages are counted to; samples are ten minutes old unless they say otherwise.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from btreecache.resources import BUILT_IN, Resource
from tests.codec.objects import recorded

#: Recorded on 2026-11-23 from kube-apiserver 1.20.2 on etcd 3.5.30; a selection: all Tables that it
#: answered (`path`, `accept`, `status`, `body`), and of their objects what it answered to GET.
RESPONSES = Path(__file__).parents[1] / "data" / "kube-responses.jsonl"
_ANSWERS: list[dict[str, Any]] = [json.loads(line) for line in RESPONSES.read_text().splitlines()]

TABLES = [one for one in _ANSWERS if "as=Table" in one["accept"]]

#: When those Tables were made.
ASKED = datetime.fromisoformat("2026-11-23T18:53:37.5Z").timestamp()

#: The JSON text of every recorded object, by uid.
TEXTS: dict[str, bytes] = {
    json.loads(text)["metadata"]["uid"]: text.strip()
    for text in [
        *(one["body"].encode() for one in _ANSWERS if one not in TABLES),
        *(one.json for one in recorded()),
    ]
}


def asked_for(path: str) -> Resource:
    """The resource that a list's path names."""
    parts = path.split("/")
    group = parts[2] if parts[1] == "apis" else ""
    found = BUILT_IN.get(group, "v1", parts[-1])
    assert found is not None
    return found


NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC).timestamp()
BORN = "2026-05-04T11:50:00Z"
FIVE_MINUTES_AGO = "2026-05-04T11:55:00Z"
A_MINUTE_AGO = "2026-05-04T11:59:00Z"

Json = dict[str, Any]


def resource(name: str) -> Resource:
    found = BUILT_IN.named(name)
    assert found is not None
    return found


def an(name: str, **members: Any) -> Json:
    """An object; `metadata` is added to its own."""
    metadata = {"name": name, "creationTimestamp": BORN} | members.pop("metadata", {})
    return {"metadata": metadata, **members}


TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {
        "nodeSelector": {"zone": "a", "disk": "ssd"},
        "containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:2"}],
    },
}
SELECTOR = {
    "matchLabels": {"app": "web"},
    "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["b", "a"]},
        {"key": "env", "operator": "NotIn", "values": ["dev"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "zone", "operator": "Exists"},
    ],
}
SELECTED = "app=web,env notin (dev),!old,tier in (a,b),zone"

#: resource, object, cells
CELLS: list[tuple[str, Json, list[Any]]] = [
    (
        "pods",
        an(
            "full",
            spec={
                "nodeName": "n",
                "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                "readinessGates": [{"conditionType": "x/1"}, {"conditionType": "x/2"}],
            },
            status={
                "phase": "Running",
                "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "nominatedNodeName": "m",
                "conditions": [
                    {"type": "x/1", "status": "True"},
                    {"type": "x/2", "status": "False"},
                    {"type": "x/2", "status": "True"},
                    {"type": "Ready", "status": "True"},
                ],
                "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}, "restartCount": 9},
                    {
                        "name": "s",
                        "ready": True,
                        "started": True,
                        "restartCount": 1,
                        "state": {"running": {}},
                        "lastState": {"terminated": {"finishedAt": A_MINUTE_AGO}},
                    },
                ],
                "containerStatuses": [
                    {"name": "a", "ready": True, "state": {"running": {}}},
                    {
                        "name": "b",
                        "ready": False,
                        "restartCount": 2,
                        "state": {"running": {}},
                        "lastState": {"terminated": {"finishedAt": FIVE_MINUTES_AGO}},
                    },
                ],
            },
        ),
        ["full", "2/3", "Running", "3 (60s ago)", "10m", "10.0.0.1", "n", "m", "1/2"],
    ),
    ("pods", an("none"), ["none", "0/0", "", "0", "10m", *["<none>"] * 4]),
    (
        "pods",
        an("old", status={"podIP": "10.0.0.2"}),
        ["old", "0/0", "", "0", "10m", "10.0.0.2", *["<none>"] * 3],
    ),
    (
        "nodes",
        an(
            "n",
            metadata={
                "labels": {
                    "node-role.kubernetes.io/worker": "",
                    "node-role.kubernetes.io/control-plane": "",
                    "node-role.kubernetes.io/": "",
                    "kubernetes.io/role": "edge",
                }
            },
            spec={"unschedulable": True},
            status={
                "conditions": [{"type": "Ready", "status": "Unknown"}],
                "nodeInfo": {
                    "kubeletVersion": "v1.34.0",
                    "osImage": "Debian",
                    "kernelVersion": "6.1",
                    "containerRuntimeVersion": "containerd://2",
                },
                "addresses": [
                    {"type": "Hostname", "address": "h"},
                    {"type": "InternalIP", "address": "10.0.0.9"},
                    {"type": "InternalIP", "address": "fd00::9"},
                    {"type": "ExternalIP", "address": "1.2.3.4"},
                ],
            },
        ),
        ["n", "NotReady,SchedulingDisabled", "control-plane,edge,worker", "10m", "v1.34.0",
         "10.0.0.9", "1.2.3.4", "Debian", "6.1", "containerd://2"],
    ),
    (
        "nodes",
        an("bare"),
        ["bare", "Unknown", "<none>", "10m", "", *["<none>"] * 2, *["<unknown>"] * 3],
    ),
    (
        "nodes",
        an("ok", status={"conditions": [{"type": "Ready", "status": "True"}]}),
        ["ok", "Ready", "<none>", "10m", "", *["<none>"] * 2, *["<unknown>"] * 3],
    ),
    (
        "services",
        an(
            "lb",
            spec={
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1", "fd00::1"],
                "externalIPs": ["5.6.7.8"],
                "selector": {"b": "2", "a": "1"},
                "ports": [
                    {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                    {"port": 53, "protocol": "UDP"},
                    {"port": 90},
                ],
            },
            status={"loadBalancer": {"ingress": [{"hostname": "z"}, {"ip": "1.1.1.1"}, {}]}},
        ),
        ["lb", "LoadBalancer", "10.96.0.1", "1.1.1.1,z,5.6.7.8", "80:30080/TCP,53/UDP,90/TCP",
         "10m", "a=1,b=2"],
    ),
    (
        "services",
        an("wait", spec={"type": "LoadBalancer", "clusterIP": "10.96.0.2"}),
        ["wait", "LoadBalancer", "10.96.0.2", "<pending>", "<none>", "10m", "<none>"],
    ),
    (
        "services",
        an("own", spec={"type": "LoadBalancer", "externalIPs": ["5.6.7.8"]}),
        ["own", "LoadBalancer", "<none>", "5.6.7.8", "<none>", "10m", "<none>"],
    ),
    (
        "services",
        an("name", spec={"type": "ExternalName", "externalName": "db.example"}),
        ["name", "ExternalName", "<none>", "db.example", "<none>", "10m", "<none>"],
    ),
    (
        "services",
        an("port", spec={"type": "NodePort", "externalIPs": ["1.1.1.1", "2.2.2.2"]}),
        ["port", "NodePort", "<none>", "1.1.1.1,2.2.2.2", "<none>", "10m", "<none>"],
    ),
    (
        "services",
        an("plain", spec={"clusterIPs": ["None"]}),
        ["plain", "ClusterIP", "None", "<none>", "<none>", "10m", "<none>"],
    ),
    (
        "services",
        an("odd", spec={"type": "Odd"}),
        ["odd", "Odd", "<none>", "<unknown>", "<none>", "10m", "<none>"],
    ),
    (
        "configmaps",
        an("cm", data={"a": "1", "b": "2"}, binaryData={"c": "AA=="}),
        ["cm", 3, "10m"],
    ),
    ("secrets", an("s", type="kubernetes.io/tls", data={"a": "AA=="}),
     ["s", "kubernetes.io/tls", 1, "10m"]),
    ("secrets", an("s"), ["s", "Opaque", 0, "10m"]),
    ("serviceaccounts", an("sa", secrets=[{"name": "t"}]), ["sa", 1, "10m"]),
    ("namespaces", an("ns", status={"phase": "Terminating"}), ["ns", "Terminating", "10m"]),
    ("namespaces", an("ns"), ["ns", "Active", "10m"]),
    (
        "events",
        an(
            "e.1",
            type="Warning",
            reason="BackOff",
            message="\n back off \n",
            involvedObject={"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            source={"component": "kubelet", "host": "n"},
            firstTimestamp=FIVE_MINUTES_AGO,
            lastTimestamp=A_MINUTE_AGO,
            count=4,
        ),
        ["60s", "Warning", "BackOff", "pod/p", "spec.containers{c}", "kubelet, n", "back off",
         "5m", 4, "e.1"],
    ),
    (
        "events",
        an(
            "e.2",
            type="Normal",
            reason="Scheduled",
            involvedObject={"kind": "Node"},
            reportingComponent="sched",
            reportingInstance="m",
            eventTime="2026-05-04T11:55:00.000001Z",
            firstTimestamp=None,
            lastTimestamp=None,
            series={"count": 7, "lastObservedTime": "2026-05-04T11:59:00.5Z"},
        ),
        ["59s", "Normal", "Scheduled", "node", "", "sched, m", "", "4m59s", 7, "e.2"],
    ),
    ("events", an("e.3"), ["<unknown>", "", "", "", "", "", "", "<unknown>", 1, "e.3"]),
    (
        "events.events.k8s.io",
        an(
            "e.4",
            note="said",
            regarding={"kind": "Pod", "name": "p"},
            reportingController="kubelet",
            deprecatedCount=2,
            deprecatedSource={"host": "n"},
            deprecatedFirstTimestamp=FIVE_MINUTES_AGO,
            deprecatedLastTimestamp=A_MINUTE_AGO,
        ),
        ["60s", "", "", "pod/p", "", "kubelet, n", "said", "5m", 2, "e.4"],
    ),
    (
        "deployments",
        an(
            "d",
            spec={"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
            status={"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
        ),
        ["d", "2/3", 1, 2, "10m", "c,d", "i:1,j:2", SELECTED],
    ),
    ("deployments", an("d"), ["d", "0/1", 0, 0, "10m", "", "", ""]),
    (
        "deployments",
        an("d", spec={"replicas": 0, "selector": {"matchExpressions": [{"operator": "Near"}]}}),
        ["d", "0/0", 0, 0, "10m", "", "", "<invalid>"],
    ),
    (
        "replicasets",
        an(
            "rs",
            spec={"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
            status={"replicas": 2, "readyReplicas": 1},
        ),
        ["rs", 3, 2, 1, "10m", "c,d", "i:1,j:2", SELECTED],
    ),
    (
        "replicasets",
        an("rs", spec={"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
        ["rs", 1, 0, 0, "10m", "", "", "<error>"],
    ),
    (
        "replicationcontrollers",
        an("rc", spec={"replicas": 1, "template": TEMPLATE, "selector": {"a": "b"}}),
        ["rc", 1, 0, 0, "10m", "c,d", "i:1,j:2", "a=b"],
    ),
    (
        "statefulsets",
        an("sts", spec={"replicas": 3, "template": TEMPLATE}, status={"readyReplicas": 1}),
        ["sts", "1/3", "10m", "c,d", "i:1,j:2"],
    ),
    (
        "daemonsets",
        an(
            "ds",
            spec={"template": TEMPLATE, "selector": SELECTOR},
            status={
                "desiredNumberScheduled": 5,
                "currentNumberScheduled": 4,
                "numberReady": 3,
                "updatedNumberScheduled": 2,
                "numberAvailable": 1,
            },
        ),
        ["ds", 5, 4, 3, 2, 1, "disk=ssd,zone=a", "10m", "c,d", "i:1,j:2", SELECTED],
    ),
    (
        "jobs",
        an(
            "j",
            spec={"completions": 4, "parallelism": 2, "template": TEMPLATE, "selector": SELECTOR},
            status={
                "succeeded": 4,
                "startTime": FIVE_MINUTES_AGO,
                "completionTime": A_MINUTE_AGO,
                "conditions": [{"type": "Complete", "status": "True"}],
            },
        ),
        ["j", "Complete", "4/4", "4m", "10m", "c,d", "i:1,j:2", SELECTED],
    ),
    ("jobs", an("j"), ["j", "Running", "0/1", "", "10m", "", "", "<none>"]),
    (
        "jobs",
        an("j", spec={"parallelism": 3}, status={"startTime": A_MINUTE_AGO, "succeeded": 1}),
        ["j", "Running", "1/1 of 3", "60s", "10m", "", "", "<none>"],
    ),
    (
        "cronjobs",
        an(
            "cj",
            spec={
                "schedule": "*/5 * * * *",
                "timeZone": "Etc/UTC",
                "suspend": True,
                "jobTemplate": {"spec": {"template": TEMPLATE}},
            },
            status={"active": [{}, {}], "lastScheduleTime": FIVE_MINUTES_AGO},
        ),
        ["cj", "*/5 * * * *", "Etc/UTC", "True", 2, "5m", "10m", "c,d", "i:1,j:2", "<none>"],
    ),
    (
        "cronjobs",
        an("cj"),
        ["cj", "", "<none>", "False", 0, "<none>", "10m", "", "", "<none>"],
    ),
    (
        "endpoints",
        an(
            "ep",
            subsets=[
                {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                 "ports": [{"port": 80}, {"port": 90}]},
                {"addresses": [{"ip": "10.0.0.3"}]},
            ],
        ),
        ["ep", "10.0.0.1:80,[fd00::1]:80,10.0.0.1:90 + 2 more...", "10m"],
    ),
    ("endpoints", an("ep"), ["ep", "<none>", "10m"]),
    ("endpoints", an("ep", subsets=[{"ports": [{"port": 1}]}]), ["ep", "", "10m"]),
    (
        "endpoints",
        an("ep", subsets=[{"addresses": [{"ip": "fd00::1"}]}]),
        ["ep", "fd00::1", "10m"],
    ),
    (
        "persistentvolumes",
        an(
            "pv",
            metadata={"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
            spec={
                "capacity": {"storage": "5Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "ns", "name": "c"},
                "storageClassName": "new",
                "volumeAttributesClassName": "gold",
                "volumeMode": "Block",
            },
            status={"phase": "Failed", "reason": "Why"},
        ),
        ["pv", "5Gi", "RWO,RWX", "Delete", "Failed", "ns/c", "old", "gold", "Why", "10m", "Block"],
    ),
    (
        "persistentvolumes",
        an("pv", metadata={"deletionTimestamp": BORN}),
        ["pv", "0", "", "Retain", "Terminating", "", "", "<unset>", "", "10m", "Filesystem"],
    ),
    (
        "persistentvolumeclaims",
        an(
            "pvc",
            spec={"volumeName": "pv", "storageClassName": "fast"},
            status={
                "phase": "Bound",
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOncePod", "ReadOnlyMany"],
            },
        ),
        ["pvc", "Bound", "pv", "1Gi", "ROX,RWOP", "fast", "<unset>", "10m", "Filesystem"],
    ),
    (
        "persistentvolumeclaims",
        an("pvc", status={"capacity": {"storage": "1Gi"}}),
        ["pvc", "Pending", "", "", "", "", "<unset>", "10m", "Filesystem"],
    ),
    (
        "ingresses",
        an(
            "ing",
            spec={
                "ingressClassName": "nginx",
                "rules": [{"host": "a"}, {}, {"host": "b"}, {"host": "c"}, {"host": "d"}],
                "tls": [{}],
            },
            status={"loadBalancer": {"ingress": [{"ip": "1.1.1.1", "hostname": "x"}]}},
        ),
        ["ing", "nginx", "a,b,c + 2 more...", "1.1.1.1", "80, 443", "10m"],
    ),
    ("ingresses", an("ing"), ["ing", "<none>", "*", "", "80", "10m"]),
    (
        "ingressclasses",
        an(
            "ic",
            spec={
                "controller": "x/y",
                "parameters": {"kind": "P", "apiGroup": "x.io", "name": "p"},
            },
        ),
        ["ic", "x/y", "P.x.io/p", "10m"],
    ),
    ("ingressclasses", an("ic"), ["ic", "", "<none>", "10m"]),
    ("networkpolicies", an("np", spec={"podSelector": SELECTOR}), ["np", SELECTED, "10m"]),
    (
        "endpointslices",
        an(
            "es",
            addressType="IPv4",
            ports=[{"port": 80}, {"name": "all"}, {}],
            endpoints=[{"addresses": ["a", "b"]}, {"addresses": ["c"]}, {"addresses": ["d"]}],
        ),
        ["es", "IPv4", "80,all,*", "a,b,c + 1 more...", "10m"],
    ),
    ("endpointslices", an("es"), ["es", "", "<unset>", "<unset>", "10m"]),
    (
        "storageclasses",
        an(
            "sc",
            metadata={"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            provisioner="p",
            reclaimPolicy="Retain",
            volumeBindingMode="WaitForFirstConsumer",
            allowVolumeExpansion=True,
        ),
        ["sc (default)", "p", "Retain", "WaitForFirstConsumer", True, "10m"],
    ),
    ("storageclasses", an("sc"), ["sc", "", "Delete", "Immediate", False, "10m"]),
    (
        "priorityclasses",
        an("pc", value=-7, globalDefault=True),
        ["pc", -7, True, "10m", "PreemptLowerPriority"],
    ),
    ("leases", an("l", spec={"holderIdentity": "h"}), ["l", "h", "10m"]),
    (
        "poddisruptionbudgets",
        an("pdb", spec={"minAvailable": "50%"}, status={"disruptionsAllowed": 2}),
        ["pdb", "50%", "N/A", 2, "10m"],
    ),
    (
        "poddisruptionbudgets",
        an("pdb", spec={"maxUnavailable": 0}),
        ["pdb", "N/A", "0", 0, "10m"],
    ),
    (
        "rolebindings",
        an(
            "rb",
            roleRef={"kind": "Role", "name": "r"},
            subjects=[
                {"kind": "User", "name": "u"},
                {"kind": "User", "name": "v"},
                {"kind": "Group", "name": "g"},
                {"kind": "ServiceAccount", "name": "s", "namespace": "ns"},
                {"kind": "ServiceAccount", "name": "t"},
            ],
        ),
        ["rb", "Role/r", "10m", "u, v", "g", "ns/s, t"],
    ),
    ("clusterroles", an("cr"), ["cr", BORN]),
    ("customresourcedefinitions", an("crd"), ["crd", BORN]),
    ("controllerrevisions", an("x"), ["x", "10m"]),
]  # fmt: skip

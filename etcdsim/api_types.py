"""The messages of the Kubernetes objects that the simulator writes, as a table of facts.

Names and numbers are the wire format of the Kubernetes API (`generated.proto` of k8s.io/api). Only
what the simulator's objects hold is in the table, and what an API server writes even if it is
empty.
"""

from __future__ import annotations

from typing import NamedTuple

#: `Message` at the margin, then `name number type` per field, in the order of the wire. A type is
#: a word below or a message. `?` before it: written only if it is there; `*` likewise, each of a
#: list; `{}` likewise, a map from strings. Everything else is written even if it is empty.
#: `-` for a name: a message whose members are its owner's in JSON.
_TABLE = """
ConfigMap
    metadata 1 ObjectMeta
    data 2 {}string
ConfigMapProjection
    - 1 LocalObjectReference
Container
    name 1 string
    image 2 string
    workingDir 5 string
    ports 6 *ContainerPort
    env 7 *EnvVar
    resources 8 ResourceRequirements
    volumeMounts 9 *VolumeMount
    livenessProbe 10 ?Probe
    readinessProbe 11 ?Probe
    terminationMessagePath 13 string
    imagePullPolicy 14 string
    stdin 16 bool
    stdinOnce 17 bool
    tty 18 bool
    terminationMessagePolicy 20 string
ContainerImage
    names 1 *string
    sizeBytes 2 int
ContainerPort
    name 1 string
    hostPort 2 int
    containerPort 3 int
    protocol 4 string
    hostIP 5 string
ContainerState
    running 2 ?ContainerStateRunning
ContainerStateRunning
    startedAt 1 Time
ContainerStatus
    name 1 string
    state 2 ContainerState
    lastState 3 ContainerState
    ready 4 bool
    restartCount 5 int
    image 6 string
    imageID 7 string
    containerID 8 string
    started 9 ?bool
DaemonEndpoint
    Port 1 int
EnvVar
    name 1 string
    value 2 string
    valueFrom 3 ?EnvVarSource
EnvVarSource
    fieldRef 1 ?ObjectFieldSelector
Event
    metadata 1 ObjectMeta
    involvedObject 2 ObjectReference
    reason 3 string
    message 4 string
    source 5 EventSource
    firstTimestamp 6 Time
    lastTimestamp 7 Time
    count 8 int
    type 9 string
    eventTime 10 MicroTime
    action 12 string
    reportingComponent 14 string
    reportingInstance 15 string
EventSource
    component 1 string
    host 2 string
HTTPGetAction
    path 1 string
    port 2 IntOrString
    host 3 string
    scheme 4 string
Lease
    metadata 1 ObjectMeta
    spec 2 LeaseSpec
LeaseSpec
    holderIdentity 1 ?string
    leaseDurationSeconds 2 ?int
    renewTime 4 ?MicroTime
LocalObjectReference
    name 1 string
Node
    metadata 1 ObjectMeta
    spec 2 NodeSpec
    status 3 NodeStatus
NodeAddress
    type 1 string
    address 2 string
NodeCondition
    type 1 string
    status 2 string
    lastHeartbeatTime 3 Time
    lastTransitionTime 4 Time
    reason 5 string
    message 6 string
NodeDaemonEndpoints
    kubeletEndpoint 1 DaemonEndpoint
NodeSpec
    podCIDR 1 string
    externalID 2 string
    providerID 3 string
    unschedulable 4 bool
NodeStatus
    capacity 1 {}Quantity
    allocatable 2 {}Quantity
    phase 3 string
    conditions 4 *NodeCondition
    addresses 5 *NodeAddress
    daemonEndpoints 6 NodeDaemonEndpoints
    nodeInfo 7 NodeSystemInfo
    images 8 *ContainerImage
NodeSystemInfo
    machineID 1 string
    systemUUID 2 string
    bootID 3 string
    kernelVersion 4 string
    osImage 5 string
    containerRuntimeVersion 6 string
    kubeletVersion 7 string
    kubeProxyVersion 8 string
    operatingSystem 9 string
    architecture 10 string
ObjectFieldSelector
    apiVersion 1 string
    fieldPath 2 string
ObjectMeta
    name 1 string
    generateName 2 string
    namespace 3 string
    selfLink 4 string
    uid 5 string
    resourceVersion 6 string
    generation 7 int
    creationTimestamp 8 Time
    labels 11 {}string
    annotations 12 {}string
    ownerReferences 13 *OwnerReference
ObjectReference
    kind 1 string
    namespace 2 string
    name 3 string
    uid 4 string
    apiVersion 5 string
    resourceVersion 6 string
    fieldPath 7 string
OwnerReference
    kind 1 string
    name 3 string
    uid 4 string
    apiVersion 5 string
    controller 6 ?bool
    blockOwnerDeletion 7 ?bool
Pod
    metadata 1 ObjectMeta
    spec 2 PodSpec
    status 3 PodStatus
PodCondition
    type 1 string
    status 2 string
    lastProbeTime 3 Time
    lastTransitionTime 4 Time
    reason 5 string
    message 6 string
    observedGeneration 7 int
PodIP
    ip 1 string
PodSpec
    volumes 1 *Volume
    containers 2 *Container
    restartPolicy 3 string
    terminationGracePeriodSeconds 4 ?int
    dnsPolicy 6 string
    serviceAccountName 8 string
    serviceAccount 9 string
    nodeName 10 string
    hostNetwork 11 bool
    hostPID 12 bool
    hostIPC 13 bool
    hostname 16 string
    subdomain 17 string
    schedulerName 19 string
    tolerations 22 *Toleration
    priorityClassName 24 string
    priority 25 ?int
    enableServiceLinks 30 ?bool
    preemptionPolicy 31 ?string
PodStatus
    phase 1 string
    conditions 2 *PodCondition
    message 3 string
    reason 4 string
    hostIP 5 string
    podIP 6 string
    startTime 7 ?Time
    containerStatuses 8 *ContainerStatus
    qosClass 9 string
    nominatedNodeName 11 string
    podIPs 12 *PodIP
    resize 14 string
    observedGeneration 17 int
Probe
    - 1 ProbeHandler
    initialDelaySeconds 2 int
    timeoutSeconds 3 int
    periodSeconds 4 int
    successThreshold 5 int
    failureThreshold 6 int
ProbeHandler
    httpGet 2 ?HTTPGetAction
ProjectedVolumeSource
    sources 1 *VolumeProjection
    defaultMode 2 ?int
ResourceRequirements
    limits 1 {}Quantity
    requests 2 {}Quantity
Secret
    metadata 1 ObjectMeta
    data 2 {}bytes
    type 3 string
ServiceAccountTokenProjection
    audience 1 string
    expirationSeconds 2 ?int
    path 3 string
Toleration
    key 1 string
    operator 2 string
    value 3 string
    effect 4 string
    tolerationSeconds 5 ?int
Volume
    name 1 string
    - 2 VolumeSource
VolumeMount
    name 1 string
    readOnly 2 bool
    mountPath 3 string
    subPath 4 string
    subPathExpr 6 string
VolumeProjection
    configMap 3 ?ConfigMapProjection
    serviceAccountToken 4 ?ServiceAccountTokenProjection
VolumeSource
    projected 26 ?ProjectedVolumeSource
"""

#: Types that are no messages of the table.
WORDS = {"string", "bool", "int", "bytes", "Time", "MicroTime", "Quantity", "IntOrString"}


class Field(NamedTuple):
    """One field. `shape`: "" always written, "?" if it is there, "*" a list, "{}" a map."""

    name: str
    number: int
    shape: str
    type: str


def _fields(block: list[str]) -> tuple[Field, ...]:
    found = []
    for line in block:
        name, number, written = line.split()
        kind = written.lstrip("?*{}")
        found.append(Field(name, int(number), written[: len(written) - len(kind)], kind))
    return tuple(found)


def _messages(table: str) -> dict[str, tuple[Field, ...]]:
    blocks: dict[str, list[str]] = {}
    name = ""
    for line in table.strip().splitlines():
        if not line.startswith(" "):
            name = line
            blocks[name] = []
        else:
            blocks[name].append(line)
    return {name: _fields(block) for name, block in blocks.items()}


#: The fields of each message, in the order of the wire.
MESSAGES = _messages(_TABLE)

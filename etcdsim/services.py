"""The rest of the etcd v3 API as data: what a server speaks beyond what clients of ours need.

The messages join those of `etcdsim.wire` in the same pool, written the same way. The facts are from
etcd's `rpc.proto` (3.6, and RangeStream of 3.7) and `v3lock.proto`, gRPC's `health.proto`. Enums
that etcd declares beside a message are declared inside it here: the bytes are the same.
"""

from __future__ import annotations

from typing import Any

from etcdsim import wire
from etcdsim.wire import MESSAGES, Method

_TABLE = """
authpb.UserAddOptions
    no_password 1 bool
authpb.Permission
    enum Type: READ WRITE READWRITE
    permType 1 Type
    key 2 bytes
    range_end 3 bytes

etcdserverpb.RangeStreamResponse
    range_response 1 RangeResponse

etcdserverpb.LeaseGrantRequest
    TTL 1 int64
    ID 2 int64
etcdserverpb.LeaseGrantResponse
    header 1 ResponseHeader
    ID 2 int64
    TTL 3 int64
    error 4 string
etcdserverpb.LeaseRevokeRequest
    ID 1 int64
etcdserverpb.LeaseRevokeResponse
    header 1 ResponseHeader
etcdserverpb.LeaseKeepAliveRequest
    ID 1 int64
etcdserverpb.LeaseKeepAliveResponse
    header 1 ResponseHeader
    ID 2 int64
    TTL 3 int64
etcdserverpb.LeaseTimeToLiveRequest
    ID 1 int64
    keys 2 bool
etcdserverpb.LeaseTimeToLiveResponse
    header 1 ResponseHeader
    ID 2 int64
    TTL 3 int64
    grantedTTL 4 int64
    keys 5 *bytes
etcdserverpb.LeaseLeasesRequest
etcdserverpb.LeaseStatus
    ID 1 int64
etcdserverpb.LeaseLeasesResponse
    header 1 ResponseHeader
    leases 2 *LeaseStatus

etcdserverpb.HashRequest
etcdserverpb.HashResponse
    header 1 ResponseHeader
    hash 2 uint32
etcdserverpb.HashKVRequest
    revision 1 int64
etcdserverpb.HashKVResponse
    header 1 ResponseHeader
    hash 2 uint32
    compact_revision 3 int64
    hash_revision 4 int64
etcdserverpb.SnapshotRequest
etcdserverpb.SnapshotResponse
    header 1 ResponseHeader
    remaining_bytes 2 uint64
    blob 3 bytes
    version 4 string
etcdserverpb.AlarmMember
    enum AlarmType: NONE NOSPACE CORRUPT
    memberID 1 uint64
    alarm 2 AlarmType
etcdserverpb.AlarmRequest
    enum AlarmAction: GET ACTIVATE DEACTIVATE
    action 1 AlarmAction
    memberID 2 uint64
    alarm 3 AlarmMember.AlarmType
etcdserverpb.AlarmResponse
    header 1 ResponseHeader
    alarms 2 *AlarmMember
etcdserverpb.DefragmentRequest
etcdserverpb.DefragmentResponse
    header 1 ResponseHeader
etcdserverpb.MoveLeaderRequest
    targetID 1 uint64
etcdserverpb.MoveLeaderResponse
    header 1 ResponseHeader

etcdserverpb.Member
    ID 1 uint64
    name 2 string
    peerURLs 3 *string
    clientURLs 4 *string
    isLearner 5 bool
etcdserverpb.MemberListRequest
    linearizable 1 bool
etcdserverpb.MemberListResponse
    header 1 ResponseHeader
    members 2 *Member
etcdserverpb.MemberAddRequest
    peerURLs 1 *string
    isLearner 2 bool
etcdserverpb.MemberAddResponse
    header 1 ResponseHeader
    member 2 Member
    members 3 *Member
etcdserverpb.MemberRemoveRequest
    ID 1 uint64
etcdserverpb.MemberRemoveResponse
    header 1 ResponseHeader
    members 2 *Member
etcdserverpb.MemberUpdateRequest
    ID 1 uint64
    peerURLs 2 *string
etcdserverpb.MemberUpdateResponse
    header 1 ResponseHeader
    members 2 *Member

etcdserverpb.AuthEnableRequest
etcdserverpb.AuthEnableResponse
    header 1 ResponseHeader
etcdserverpb.AuthDisableRequest
etcdserverpb.AuthDisableResponse
    header 1 ResponseHeader
etcdserverpb.AuthStatusRequest
etcdserverpb.AuthStatusResponse
    header 1 ResponseHeader
    enabled 2 bool
    authRevision 3 uint64
etcdserverpb.AuthUserAddRequest
    name 1 string
    password 2 string
    options 3 authpb.UserAddOptions
    hashedPassword 4 string
etcdserverpb.AuthUserAddResponse
    header 1 ResponseHeader
etcdserverpb.AuthUserGetRequest
    name 1 string
etcdserverpb.AuthUserGetResponse
    header 1 ResponseHeader
    roles 2 *string
etcdserverpb.AuthUserListRequest
etcdserverpb.AuthUserListResponse
    header 1 ResponseHeader
    users 2 *string
etcdserverpb.AuthUserDeleteRequest
    name 1 string
etcdserverpb.AuthUserDeleteResponse
    header 1 ResponseHeader
etcdserverpb.AuthUserChangePasswordRequest
    name 1 string
    password 2 string
    hashedPassword 3 string
etcdserverpb.AuthUserChangePasswordResponse
    header 1 ResponseHeader
etcdserverpb.AuthUserGrantRoleRequest
    user 1 string
    role 2 string
etcdserverpb.AuthUserGrantRoleResponse
    header 1 ResponseHeader
etcdserverpb.AuthUserRevokeRoleRequest
    name 1 string
    role 2 string
etcdserverpb.AuthUserRevokeRoleResponse
    header 1 ResponseHeader
etcdserverpb.AuthRoleAddRequest
    name 1 string
etcdserverpb.AuthRoleAddResponse
    header 1 ResponseHeader
etcdserverpb.AuthRoleGetRequest
    role 1 string
etcdserverpb.AuthRoleGetResponse
    header 1 ResponseHeader
    perm 2 *authpb.Permission
etcdserverpb.AuthRoleListRequest
etcdserverpb.AuthRoleListResponse
    header 1 ResponseHeader
    roles 2 *string
etcdserverpb.AuthRoleDeleteRequest
    role 1 string
etcdserverpb.AuthRoleDeleteResponse
    header 1 ResponseHeader
etcdserverpb.AuthRoleGrantPermissionRequest
    name 1 string
    perm 2 authpb.Permission
etcdserverpb.AuthRoleGrantPermissionResponse
    header 1 ResponseHeader
etcdserverpb.AuthRoleRevokePermissionRequest
    role 1 string
    key 2 bytes
    range_end 3 bytes
etcdserverpb.AuthRoleRevokePermissionResponse
    header 1 ResponseHeader

v3lockpb.LockRequest
    name 1 bytes
    lease 2 int64
v3lockpb.LockResponse
    header 1 etcdserverpb.ResponseHeader
    key 2 bytes
v3lockpb.UnlockRequest
    key 1 bytes
v3lockpb.UnlockResponse
    header 1 etcdserverpb.ResponseHeader

v3electionpb.LeaderKey
    name 1 bytes
    key 2 bytes
    rev 3 int64
    lease 4 int64
v3electionpb.CampaignRequest
    name 1 bytes
    lease 2 int64
    value 3 bytes
v3electionpb.CampaignResponse
    header 1 etcdserverpb.ResponseHeader
    leader 2 LeaderKey
v3electionpb.ProclaimRequest
    leader 1 LeaderKey
    value 2 bytes
v3electionpb.ProclaimResponse
    header 1 etcdserverpb.ResponseHeader
v3electionpb.LeaderRequest
    name 1 bytes
v3electionpb.LeaderResponse
    header 1 etcdserverpb.ResponseHeader
    kv 2 mvccpb.KeyValue
v3electionpb.ResignRequest
    leader 1 LeaderKey
v3electionpb.ResignResponse
    header 1 etcdserverpb.ResponseHeader

grpc.health.v1.HealthCheckRequest
    service 1 string
grpc.health.v1.HealthCheckResponse
    enum ServingStatus: UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN
    status 1 ServingStatus
"""

MESSAGES.add(_TABLE)


def message(name: str) -> Any:
    """The class of a message by its full name, or of `etcdserverpb` by its own. Raises KeyError."""
    return MESSAGES[name if "." in name else f"etcdserverpb.{name}"]


def _method(service: str, name: str, **shape: bool) -> Method:
    # Messages are named after their method, in the package of the service.
    package, _, kind = service.rpartition(".")
    stem = f"{package}.{'Auth' if kind == 'Auth' and not name.startswith('Auth') else ''}{name}"
    return Method(
        f"/{service}/{name}", MESSAGES[f"{stem}Request"], MESSAGES[f"{stem}Response"], **shape
    )


RANGE_STREAM = Method(
    "/etcdserverpb.KV/RangeStream",
    wire.RangeRequest,
    MESSAGES["etcdserverpb.RangeStreamResponse"],
    answers=True,
)

_LEASE = "etcdserverpb.Lease"
LEASE_GRANT = _method(_LEASE, "LeaseGrant")
LEASE_REVOKE = _method(_LEASE, "LeaseRevoke")
LEASE_KEEP_ALIVE = _method(_LEASE, "LeaseKeepAlive", stream=True)
LEASE_TIME_TO_LIVE = _method(_LEASE, "LeaseTimeToLive")
LEASE_LEASES = _method(_LEASE, "LeaseLeases")

_MAINTENANCE = "etcdserverpb.Maintenance"
ALARM = _method(_MAINTENANCE, "Alarm")
DEFRAGMENT = _method(_MAINTENANCE, "Defragment")
HASH = _method(_MAINTENANCE, "Hash")
HASH_KV = _method(_MAINTENANCE, "HashKV")
SNAPSHOT = _method(_MAINTENANCE, "Snapshot", answers=True)
MOVE_LEADER = _method(_MAINTENANCE, "MoveLeader")

_CLUSTER = "etcdserverpb.Cluster"
MEMBER_LIST = _method(_CLUSTER, "MemberList")
MEMBER_ADD = _method(_CLUSTER, "MemberAdd")
MEMBER_REMOVE = _method(_CLUSTER, "MemberRemove")
MEMBER_UPDATE = _method(_CLUSTER, "MemberUpdate")

_AUTH = "etcdserverpb.Auth"
AUTH_ENABLE = _method(_AUTH, "AuthEnable")
AUTH_DISABLE = _method(_AUTH, "AuthDisable")
AUTH_STATUS = _method(_AUTH, "AuthStatus")
USER_ADD = _method(_AUTH, "UserAdd")
USER_GET = _method(_AUTH, "UserGet")
USER_LIST = _method(_AUTH, "UserList")
USER_DELETE = _method(_AUTH, "UserDelete")
USER_CHANGE_PASSWORD = _method(_AUTH, "UserChangePassword")
USER_GRANT_ROLE = _method(_AUTH, "UserGrantRole")
USER_REVOKE_ROLE = _method(_AUTH, "UserRevokeRole")
ROLE_ADD = _method(_AUTH, "RoleAdd")
ROLE_GET = _method(_AUTH, "RoleGet")
ROLE_LIST = _method(_AUTH, "RoleList")
ROLE_DELETE = _method(_AUTH, "RoleDelete")
ROLE_GRANT_PERMISSION = _method(_AUTH, "RoleGrantPermission")
ROLE_REVOKE_PERMISSION = _method(_AUTH, "RoleRevokePermission")

LOCK = _method("v3lockpb.Lock", "Lock")
UNLOCK = _method("v3lockpb.Lock", "Unlock")

_ELECTION = "v3electionpb.Election"
CAMPAIGN = _method(_ELECTION, "Campaign")
PROCLAIM = _method(_ELECTION, "Proclaim")
LEADER = _method(_ELECTION, "Leader")
OBSERVE = LEADER._replace(path=f"/{_ELECTION}/Observe", answers=True)
RESIGN = _method(_ELECTION, "Resign")

_HEALTH = (
    MESSAGES["grpc.health.v1.HealthCheckRequest"],
    MESSAGES["grpc.health.v1.HealthCheckResponse"],
)
HEALTH_CHECK = Method("/grpc.health.v1.Health/Check", *_HEALTH)
HEALTH_WATCH = Method("/grpc.health.v1.Health/Watch", *_HEALTH, answers=True)

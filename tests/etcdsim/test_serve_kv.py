"""The services over a real gRPC channel on loopback, but for watches and leases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest

grpc = pytest.importorskip("grpc")

from etcdsim import services, wire  # noqa: E402
from etcdsim.model import Model  # noqa: E402
from etcdsim.server.listening import listen  # noqa: E402
from etcdsim.server.member import parse_version  # noqa: E402
from etcdsim.server.serving import Simulation  # noqa: E402
from tests.etcdsim import election_calls, hostile  # noqa: E402
from tests.etcdsim.served import Served  # noqa: E402

MIB = 1024 * 1024


class Client:
    """Asks a simulation on loopback."""

    def __init__(self, channel: Any, simulation: Simulation) -> None:
        self.channel, self.simulation = channel, simulation

    async def ask(self, method: wire.Method, **fields: Any) -> Any:
        return await self.ask_raw(method.path, method.request(**fields), method.response)

    async def ask_raw(self, path: str, request: Any, response: Any = None) -> Any:
        call = self.channel.unary_unary(
            path,
            request_serializer=lambda sent: (
                sent if isinstance(sent, bytes) else sent.SerializeToString()
            ),
            response_deserializer=response.FromString if response else None,
        )
        return await call(request, timeout=10)

    async def all(self, method: wire.Method, **fields: Any) -> list[Any]:
        call = self.channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return [answer async for answer in call(method.request(**fields), timeout=10)]

    async def refused(self, method: wire.Method, **fields: Any) -> tuple[str, str]:
        return await refusal(self.ask(method, **fields))

    async def put(self, key: bytes, value: bytes = b"", **fields: Any) -> Any:
        return await self.ask(wire.PUT, key=key, value=value, **fields)


async def refusal(asked: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked
    return caught.value.code().name, caught.value.details()


def talk(story: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Run a story against a fresh simulation."""

    async def run() -> None:
        ids = iter(range(1000, 2000))
        simulation = Simulation(lambda: 0.0, lambda: next(ids), **options)
        server, port = await listen(simulation.member, simulation.handlers, "127.0.0.1:0")
        channel_options = [("grpc.max_receive_message_length", -1)]
        try:
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{port}", options=channel_options
            ) as channel:
                await story(Client(channel, simulation))
        finally:
            await server.stop(0)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_the_recorded_conversation_with_a_real_server() -> None:
    async def story(client: Client) -> None:
        empty = await client.ask(wire.RANGE, key=b"a")
        assert (empty.header.revision, list(empty.kvs), empty.count) == (1, [], 0)
        assert empty.header.raft_term == 2
        assert empty.header.cluster_id
        assert empty.header.member_id
        assert (await client.put(b"a", b"1")).header.revision == 2
        again = await client.put(b"a", b"2", prev_kv=True)
        assert again.prev_kv == wire.KeyValue(
            key=b"a", value=b"1", create_revision=2, mod_revision=2, version=1
        )
        for key in (b"b", b"c", b"d", b"e"):
            await client.put(key, b"v")
        everything = {"key": b"\0", "range_end": b"\0"}
        page = await client.ask(wire.RANGE, **everything, limit=2)
        assert (page.more, page.count, [kv.key for kv in page.kvs]) == (True, 5, [b"a", b"b"])
        newest = await client.ask(
            wire.RANGE, **everything, limit=2, sort_order="DESCEND", sort_target="MOD"
        )
        assert [kv.key for kv in newest.kvs] == [b"e", b"d"]
        odd = await client.ask(wire.RANGE, **everything, limit=2, sort_target="VALUE")
        assert (odd.more, [kv.key for kv in odd.kvs]) == (True, [b"a", b"b"])
        late = await client.ask(wire.RANGE, **everything, limit=1, min_mod_revision=5)
        assert (late.more, late.count, [kv.key for kv in late.kvs]) == (True, 5, [b"c"])
        counted = await client.ask(wire.RANGE, **everything, limit=1, count_only=True)
        assert (counted.count, list(counted.kvs), counted.more) == (5, [], False)
        bare = await client.ask(wire.RANGE, key=b"a", keys_only=True)
        assert bare.kvs == [wire.KeyValue(key=b"a", create_revision=2, mod_revision=3, version=2)]
        old = await client.ask(wire.RANGE, key=b"a", revision=2)
        assert (old.header.revision, old.kvs[0].value) == (7, b"1")
        deleted = await client.ask(wire.DELETE_RANGE, key=b"b", range_end=b"d", prev_kv=True)
        assert (deleted.deleted, deleted.header.revision) == (2, 8)
        assert [kv.key for kv in deleted.prev_kvs] == [b"b", b"c"]
        compacted = await client.ask(wire.COMPACT, revision=7, physical=True)
        assert compacted.header.revision == 8
        assert await client.refused(wire.RANGE, key=b"a", revision=6) == (
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision has been compacted",
        )

    talk(story)


def test_a_transaction_in_a_transaction() -> None:
    async def story(client: Client) -> None:
        put = wire.RequestOp(request_put=wire.PutRequest(key=b"a", value=b"1", prev_kv=True))
        get = wire.RequestOp(request_range=wire.RangeRequest(key=b"a"))
        inner = wire.TxnRequest(
            # Sees the state before: `a` isn't there yet.
            compare=[wire.Compare(key=b"a", target="VERSION", version=1)],
            success=[],
            failure=[wire.RequestOp(request_put=wire.PutRequest(key=b"b"))],
        )
        nested = wire.RequestOp(request_txn=inner)
        answer = await client.ask(wire.TXN, success=[put, get, nested])
        assert (answer.succeeded, answer.header.revision) == (True, 2)
        responses = answer.responses
        assert responses[0].response_put.header == wire.ResponseHeader(revision=2)
        assert responses[1].response_range.kvs[0].mod_revision == 2
        txn = responses[2].response_txn
        assert txn.HasField("header")
        assert (txn.header, txn.succeeded) == (wire.ResponseHeader(), False)
        assert txn.responses[0].response_put.header.revision == 2
        compare = wire.Compare(key=b"a", target="LEASE", lease=0)
        answer = await client.ask(wire.TXN, compare=[compare], success=[get])
        assert answer.succeeded
        assert answer.header.revision == 2

    talk(story)


INVALID = "INVALID_ARGUMENT"
REFUSED = [
    (wire.RANGE, {}, (INVALID, "etcdserver: key is not provided")),
    (wire.PUT, {"value": b"x"}, (INVALID, "etcdserver: key is not provided")),
    (wire.DELETE_RANGE, {}, (INVALID, "etcdserver: key is not provided")),
    (
        wire.PUT,
        {"key": b"k", "value": b"x", "ignore_value": True},
        (INVALID, "etcdserver: value is provided"),
    ),
    (
        wire.PUT,
        {"key": b"k", "lease": 1, "ignore_lease": True},
        (INVALID, "etcdserver: lease is provided"),
    ),
    (wire.PUT, {"key": b"no", "ignore_value": True}, (INVALID, "etcdserver: key not found")),
    (wire.PUT, {"key": b"k", "lease": 9}, ("NOT_FOUND", "etcdserver: requested lease not found")),
    (wire.TXN, {"success": [wire.RequestOp()]}, (INVALID, "etcdserver: key not found")),
    (
        wire.TXN,
        {"success": [wire.RequestOp(request_range={"key": b"k"})] * 129},
        (INVALID, "etcdserver: too many operations in txn request"),
    ),
    (
        wire.TXN,
        {"failure": [wire.RequestOp(request_put={"key": b"k"})] * 2},
        (INVALID, "etcdserver: duplicate key given in txn request"),
    ),
    (
        wire.RANGE,
        {"key": b"k", "revision": 2},
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
    ),
    (
        wire.COMPACT,
        {"revision": -1},
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"),
    ),
    (
        services.HASH_KV,
        {"revision": 2},
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
    ),
    (
        services.MOVE_LEADER,
        {"targetID": 5},
        ("FAILED_PRECONDITION", "etcdserver: bad leader transferee"),
    ),
    (
        services.AUTH_ENABLE,
        {},
        ("FAILED_PRECONDITION", "etcdserver: root user does not exist"),
    ),
    (
        wire.AUTHENTICATE,
        {"name": "root", "password": "x"},
        ("FAILED_PRECONDITION", "etcdserver: authentication is not enabled"),
    ),
    (services.MEMBER_REMOVE, {"ID": 5}, ("NOT_FOUND", "etcdserver: member not found")),
    (services.HEALTH_CHECK, {"service": "x"}, ("NOT_FOUND", "unknown service")),
]


def test_codes_and_texts() -> None:
    async def story(client: Client) -> None:
        for method, fields, refused in REFUSED:
            assert await client.refused(method, **fields) == refused, method.path
        assert client.simulation.member.model.revision == 1

    talk(story)


@pytest.mark.parametrize(
    ("size", "refused"),
    [
        (1_572_864 - 40, None),
        (1_572_864, (INVALID, "etcdserver: request is too large")),
        (
            3 * MIB,
            (
                "RESOURCE_EXHAUSTED",
                "grpc: received message larger than max (3145738 vs. 2097152)",
            ),
        ),
        (17 * MIB, ("RESOURCE_EXHAUSTED", None)),
    ],
)
def test_large_requests(size: int, refused: tuple[str, str | None] | None) -> None:
    async def story(client: Client) -> None:
        if refused is None:
            await client.put(b"big", b"x" * size)
            big = await client.ask(wire.RANGE, key=b"big")
            assert len(big.kvs[0].value) == size
            return
        code, text = await client.refused(wire.PUT, key=b"big", value=b"x" * size)
        assert code == refused[0]
        assert refused[1] in (None, text)
        assert (await client.ask(wire.RANGE, key=b"big")).count == 0

    talk(story)


def test_what_is_no_request() -> None:
    async def story(client: Client) -> None:
        kv = "etcdserverpb.KV"
        asked = {
            f"/{kv}/Nothing": f"unknown method Nothing for service {kv}",
            f"/{kv}/RangeStream": f"unknown method RangeStream for service {kv}",
            "/foo.Bar/Nothing": "unknown service foo.Bar",
        }
        for path, text in asked.items():
            assert await refusal(client.ask_raw(path, b"")) == ("UNIMPLEMENTED", text)
        for garbage in (b"\xff", b"\x0a\x05ab", b"\x08\x01" * 3 + b"\x0f"):
            code, text = await refusal(client.ask_raw(wire.PUT.path, garbage))
            assert code == "INTERNAL"
            assert text.startswith("grpc: error unmarshalling request: ")
        await client.put(b"still", b"there")

    talk(story)


def test_metadata_that_clients_send() -> None:
    """Of a member that leads, neither is a reason to refuse."""

    async def story(client: Client) -> None:
        call = client.channel.unary_unary(wire.RANGE.path)
        request = wire.RangeRequest(key=b"a").SerializeToString()
        for metadata in [
            ("client-api-version", "3.5"),
            ("client-api-version", ""),
            ("hasleader", "true"),
        ]:
            await call(request, metadata=[metadata], timeout=10)

    talk(story)


def test_the_alarm_nospace() -> None:
    async def story(client: Client) -> None:
        await client.put(b"a", b"1")
        raised = await client.ask(services.ALARM, action="ACTIVATE", memberID=7, alarm="NOSPACE")
        assert raised.alarms == [services.message("AlarmMember")(memberID=7, alarm="NOSPACE")]
        for alarm, raised in (("NONE", 1), ("NOSPACE", 1), ("CORRUPT", 0)):
            assert len((await client.ask(services.ALARM, alarm=alarm)).alarms) == raised
        full = ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")
        assert await client.refused(wire.PUT, key=b"b") == full
        put = wire.RequestOp(request_put=wire.PutRequest(key=b"b"))
        assert await client.refused(wire.TXN, failure=[put]) == full
        assert await client.refused(services.LEASE_GRANT, TTL=10) == full
        assert (await client.ask(wire.STATUS)).errors == ["memberID:7 alarm:NOSPACE "]
        assert (await client.ask(wire.DELETE_RANGE, key=b"a")).deleted == 1
        await client.ask(services.ALARM, action="DEACTIVATE", memberID=7, alarm="NOSPACE")
        assert not (await client.ask(services.ALARM)).alarms
        await client.put(b"b")

    talk(story)


def test_the_alarm_corrupt() -> None:
    """As 3.4.23 and 3.5.30 do: what goes through the log is refused, reads are not."""

    async def story(client: Client) -> None:
        await client.put(b"a", b"1")
        await client.ask(services.ALARM, action="ACTIVATE", memberID=7, alarm="CORRUPT")
        corrupt = ("DATA_LOSS", "etcdserver: corrupt cluster")
        for method, fields in (
            (wire.PUT, {"key": b"a"}),
            (wire.DELETE_RANGE, {"key": b"a"}),
            (wire.TXN, {"success": [wire.RequestOp(request_put={"key": b"a"})]}),
            (wire.COMPACT, {"revision": 2}),
            (services.LEASE_GRANT, {"TTL": 5}),
            (services.LEASE_REVOKE, {"ID": 5}),
        ):
            assert await client.refused(method, **fields) == corrupt
        assert (await client.ask(wire.RANGE, key=b"a")).kvs[0].value == b"1"
        read = wire.RequestOp(request_range={"key": b"a"})
        assert (await client.ask(wire.TXN, success=[read])).succeeded

    talk(story)


def test_maintenance() -> None:
    async def story(client: Client) -> None:
        for number in range(400):
            await client.put(b"key-%d" % number, b"v" * 200)
        status = await client.ask(wire.STATUS)
        assert (status.version, status.isLearner) == ("3.5.30", False)
        assert status.leader == status.header.member_id
        assert status.dbSize >= 400 * 200
        members = (await client.ask(services.MEMBER_LIST)).members
        assert [member.name for member in members] == ["default"]
        assert members[0].clientURLs[0].startswith("http://127.0.0.1:")
        *blobs, digest = await client.all(services.SNAPSHOT)
        data = b"".join(blob.blob for blob in blobs)
        assert digest.blob == sha256(data).digest()
        assert [blob.remaining_bytes for blob in blobs][-1] == 0
        assert len(data) % 512 == 0
        assert len(blobs) == -(-len(data) // 32768) > 1
        assert not (await client.ask(services.DEFRAGMENT)).HasField("header")
        assert (await client.ask(services.HEALTH_CHECK)).status == 1

    talk(story)


def test_versions_differ() -> None:
    async def old(client: Client) -> None:
        assert (await client.ask(wire.STATUS)).version == "3.4.23"
        assert (await client.refused(services.AUTH_STATUS))[0] == "UNIMPLEMENTED"
        assert not (await client.ask(services.ALARM)).HasField("header")
        assert (await client.ask(wire.RANGE, key=b"a", sort_order=7)).count == 0

    async def new(client: Client) -> None:
        status = await client.ask(wire.STATUS)
        assert (status.version, status.storageVersion) == ("3.6.11", "3.6.0")
        bad_sort = (INVALID, "etcdserver: invalid sort option")
        odd = wire.RangeRequest(key=b"a", sort_order=7)
        assert await refusal(client.ask_raw(wire.RANGE.path, odd)) == bad_sort
        ops = [wire.RequestOp(request_range=odd)]
        assert await client.refused(wire.TXN, success=ops) == bad_sort
        too_many = (INVALID, "etcdserver: too many operations in txn request")
        assert await client.refused(wire.TXN, success=ops * 129) == too_many
        no_key = (INVALID, "etcdserver: key is not provided")
        assert await client.refused(wire.RANGE, sort_order=7) == no_key

    talk(old, version="3.4.23")
    talk(new, version="3.6.11")
    for text in ("3", "3.3.27", "4.0.0", "3.5.x", ""):
        with pytest.raises(ValueError, match="not a version of etcd"):
            parse_version(text)


def test_range_stream() -> None:
    """Of 3.7, from its sources: disjoint parts in key order, what is of the whole in the last."""
    model = Model()
    for number in range(500):
        model.put(b"key-%03d" % number, b"v" * 20_000)

    async def story(client: Client) -> None:
        everything = {"key": b"\0", "range_end": b"\0"}
        parts = [
            part.range_response for part in await client.all(services.RANGE_STREAM, **everything)
        ]
        assert [kv.key for part in parts for kv in part.kvs] == [
            b"key-%03d" % number for number in range(500)
        ]
        assert len(parts[0].kvs) == 10
        assert all(not part.HasField("header") for part in parts[:-1])
        assert (parts[-1].count, parts[-1].more, parts[-1].header.revision) == (500, False, 501)
        [one] = await client.all(services.RANGE_STREAM, **everything, limit=4)
        assert (len(one.range_response.kvs), one.range_response.more) == (4, True)
        assert one.range_response.count == 500
        [none] = await client.all(services.RANGE_STREAM, key=b"z")
        assert (none.range_response.count, none.range_response.header.revision) == (0, 501)
        sorted_ = client.all(services.RANGE_STREAM, **everything, sort_order="DESCEND")
        assert (await refusal(sorted_))[0] == "UNIMPLEMENTED"

    talk(story, version="3.7.0", model=model)


def test_locks_are_given_in_the_order_of_asking() -> None:
    async def story(client: Client) -> None:
        for lease in (7, 8):
            await client.ask(services.LEASE_GRANT, ID=lease, TTL=100)
        first = await client.ask(services.LOCK, name=b"lock", lease=7)
        assert first.key == b"lock/7"
        waiting = asyncio.create_task(client.ask(services.LOCK, name=b"lock", lease=8))
        quitting = asyncio.create_task(client.ask(services.LOCK, name=b"lock"))
        model = client.simulation.member.model
        while len(model.range(b"lock/", b"lock0").kvs) < 3:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        quitting.cancel()
        while len(model.range(b"lock/", b"lock0").kvs) > 2:
            await asyncio.sleep(0.01)
        await client.ask(services.UNLOCK, key=first.key)
        assert (await waiting).key == b"lock/8"
        refused = await client.refused(services.LOCK, name=b"lock", lease=99)
        assert refused == ("UNKNOWN", "etcdserver: requested lease not found")

    talk(story)


def test_users_and_roles() -> None:
    async def story(client: Client) -> None:
        await client.ask(services.USER_ADD, name="u", password="secret")
        assert await client.refused(services.USER_ADD, name="u") == (
            "FAILED_PRECONDITION",
            "etcdserver: user name already exists",
        )
        assert await client.refused(services.USER_GRANT_ROLE, user="u", role="r") == (
            "FAILED_PRECONDITION",
            "etcdserver: role name not found",
        )
        await client.ask(services.ROLE_ADD, name="r")
        for kind in ("READ", "WRITE"):
            permission = {"key": b"a", "range_end": b"b", "permType": kind}
            await client.ask(services.ROLE_GRANT_PERMISSION, name="r", perm=permission)
        [granted] = (await client.ask(services.ROLE_GET, role="r")).perm
        assert (granted.key, granted.range_end, granted.permType) == (b"a", b"b", 1)
        for perm in ({"key": b"b", "range_end": b"a"}, {}):
            refused = await client.refused(services.ROLE_GRANT_PERMISSION, name="r", perm=perm)
            assert refused == (INVALID, "etcdserver: invalid auth management")
        assert await client.refused(services.ROLE_GRANT_PERMISSION, name="r") == (
            INVALID,
            "etcdserver: permission not given",
        )
        await client.ask(services.USER_GRANT_ROLE, user="u", role="r")
        await client.ask(services.USER_GRANT_ROLE, user="u", role="root")
        assert (await client.ask(services.USER_GET, name="u")).roles == ["r", "root"]
        status = await client.ask(services.AUTH_STATUS)
        assert (status.enabled, status.authRevision) == (False, 7)
        await client.ask(services.ROLE_DELETE, role="r")
        assert (await client.ask(services.USER_GET, name="u")).roles == ["root"]
        await client.ask(services.USER_ADD, name="root", password="secret")
        assert await client.refused(services.AUTH_ENABLE) == (
            "FAILED_PRECONDITION",
            "etcdserver: root user does not have root role",
        )
        await client.ask(services.USER_GRANT_ROLE, user="root", role="root")
        await client.ask(services.AUTH_ENABLE)
        assert await client.refused(wire.RANGE, key=b"k") == (
            INVALID,
            "etcdserver: user name is empty",
        )

    talk(story)


def test_elections() -> None:
    """`tests/interop/test_etcdsim_stories.py` holds all of it against a real etcd."""
    with Served() as served, hostile.connect(served.endpoint) as channel:
        answers = list(election_calls.story(channel))
    told = [answer for answer in answers if isinstance(answer, list)]
    assert [[kv.value for kv in kvs] for kvs in told] == [
        [value] * 2 for value in (b"one", b"again", b"news", b"not yet", b"")
    ]
    leaders = [answer.leader.key for answer in answers if hasattr(answer, "leader")]
    assert leaders == [b"chair/71"] * 3 + [b"chair/72", b"chair/73"]
    refused = [answer for answer in answers if isinstance(answer, tuple)]
    assert {code for code, _ in refused} == {"UNKNOWN"}
    assert len(refused) == 11

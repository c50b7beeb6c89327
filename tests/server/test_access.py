"""Who is let in, by which name, and what nobody is shown: without a socket."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from btreecache.cli import main
from btreecache.errors import BadRequest
from btreecache.resources import Resource, parse_resource
from btreecache.server.access import ANONYMOUS, Entrance, Tokens, User
from btreecache.server.application import application
from btreecache.server.caches import Caches, served
from btreecache.server.certificates import Certificate, subject
from btreecache.server.hidden import is_secret
from btreecache.server.listening import parse_listen
from btreecache.server.refusals import Forbidden, Unauthorized
from tests.server.visit import Visit, visit
from tests.server.world import SharedModel

TOKENS = 'sesame,ann,1,"dev,ops"\n\n  t\u00fcr , bob , 2\n'
ROOT = b"/registry"


@pytest.fixture(scope="module")
def caches() -> Iterator[Caches]:
    """Nothing follows: who is let in is decided before."""
    made = Caches(SharedModel(), served())
    yield made
    made.close()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text(TOKENS, encoding="utf-8")
    return Tokens(path)


def ask(caches: Caches, entrance: Entrance, path: str, query: bytes = b"", **more: Any) -> Visit:
    return asyncio.run(visit(application(caches, entrance), path, query, **more))


def bearer(token: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + token)]


def test_a_token_file(tokens: Tokens) -> None:
    assert tokens.user(b"sesame") == User("ann", ("dev", "ops", "system:authenticated"))
    assert tokens.user("t\u00fcr".encode()) == User("bob", ("system:authenticated",))
    for wrong in (b"", b"sesam", b"sesame ", b"SESAME", "t\u00fcr".encode("latin-1"), b"\0" * 99):
        assert tokens.user(wrong) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "there is no token"),
        (b"sesame\n", "line 1: it must have at least 3 columns"),
        (b"a,b,c\nsesame,x\n", "line 2: it must have at least 3 columns"),
        (b",user,1\n", "line 1"),
        (b"sesame,,1\n", "line 1"),
        (b"sesame,a,1\nsesame,b,2\n", "line 2: a token of two users"),
        (b'"sesame,a,1\n', "no CSV"),
        (b"sesame\xff,a,1\n", "no CSV"),
    ],
)
def test_what_is_no_token_file(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(BadRequest, match=said) as refused:
        Tokens(path)
    assert "sesame" not in str(refused.value)
    with pytest.raises(BadRequest, match="No such file"):
        Tokens(tmp_path / "none")


def test_tokens_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tokens"
    path.write_text("one,ann,1\n")
    tokens = Tokens(path)
    entrance = Entrance(tokens=tokens)
    path.write_text("other,ann,1\n")
    asyncio.run(entrance.refresh())
    assert tokens.user(b"one") is None
    assert tokens.user(b"other") is not None
    path.write_text("broken\n")
    with caplog.at_level(logging.ERROR):
        asyncio.run(entrance.refresh())
    assert "not reloaded" in caplog.text
    assert tokens.user(b"other") is not None
    caplog.clear()
    asyncio.run(entrance.refresh())  # said once, not every time it is looked
    assert not caplog.text
    path.write_text("last,ann,1\n")
    os.utime(path, ns=(1, 1))
    entrance.reload()
    assert tokens.user(b"last") is not None


def test_who_says_nothing_is_told_so_in_kubernetes_words(caches: Caches, tokens: Tokens) -> None:
    entrance = Entrance(tokens=tokens)
    for headers in (
        [], bearer(b""), bearer(b"wrong"), bearer(b"\x1b[2J\xff"), [(b"authorization", b"Basic x")],
    ):  # fmt: skip
        answer = ask(caches, entrance, "/api", headers=headers)
        assert answer.status == 401
        assert answer.body == (
            b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
            b'"message":"Unauthorized","reason":"Unauthorized","code":401}\n'
        )
    for scheme in (b"Bearer sesame", b"bearer sesame", b" BEARER sesame more"):
        headers = [(b"authorization", scheme)]
        assert ask(caches, entrance, "/api", headers=headers).status == 200


def test_what_is_public(caches: Caches, tokens: Tokens) -> None:
    entrance = Entrance(tokens=tokens)
    for path in ("/livez", "/readyz", "/healthz", "/version"):
        assert ask(caches, entrance, path).status == 200
        # As upstream: who says who he is has to be right about it.
        assert ask(caches, entrance, path, headers=bearer(b"wrong")).status == 401
    for path in ("/", "/apis", "/livez/x", "/readyz/", "/nothing", "/metrics", "/debug"):
        assert ask(caches, entrance, path).status == 401


def test_without_authentication_everybody_is_anonymous() -> None:
    assert Entrance().user("Bearer x", None) == ANONYMOUS
    assert Entrance().user(None, None) == ANONYMOUS


class AskingCertificate(Certificate):
    """One of a server that knows an authority, without files."""

    def __init__(self) -> None:
        self.asks_clients = True


def peer(*names: tuple[str, str]) -> dict[str, object]:
    return {"subject": tuple(((kind, value),) for kind, value in names)}


def test_a_client_certificate_says_who(tokens: Tokens) -> None:
    entrance = Entrance(AskingCertificate(), tokens)
    cert = peer(("organizationName", "a"), ("commonName", "eve"), ("organizationName", "b"))
    assert entrance.user(None, cert) == User("eve", ("a", "b", "system:authenticated"))
    # The certificate is asked first, as upstream, and one that names nobody isn't enough.
    assert entrance.user("Bearer wrong", cert) == entrance.user("Bearer sesame", cert)
    assert entrance.user(None, peer(("organizationName", "a"))) is None
    with pytest.raises(Unauthorized):
        entrance.user("Bearer wrong", peer())
    assert subject({}) == ("", ())
    assert subject(peer(("commonName", "a"), ("commonName", "b"))) == ("b", ())
    assert Entrance(AskingCertificate()).user("Bearer sesame", None) is None


HOSTS = {
    # host: loopback only, beyond it without TLS, under TLS
    None: (1, 1, 1), "localhost:1": (1, 1, 1), "127.0.0.1": (1, 1, 1), "[::1]:8": (1, 1, 1),
    "10.0.0.5:80": (0, 1, 1), "[2001:db8::1]": (0, 1, 1), "cache.local:80": (1, 1, 1),
    "CACHE.local": (1, 1, 1), "evil.example": (0, 0, 1), "": (0, 0, 1),
    "cache.local.evil.example": (0, 0, 1), "10.0.0.5.evil.example": (0, 0, 1),
    "[evil]": (0, 0, 1), "10.0.0.5@evil.example": (0, 0, 1), "\x1b[2J\n": (0, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_by_which_name(host: str | None) -> None:
    names = frozenset(["cache.local"])
    for allowed, entrance in zip(
        HOSTS[host],
        (
            Entrance(host_names=names),
            Entrance(host_names=names, is_local=False),
            Entrance(AskingCertificate(), host_names=names, is_local=False),
        ),
        strict=True,
    ):
        if allowed:
            entrance.check_host(host)
        else:
            with pytest.raises(Forbidden) as refused:
                entrance.check_host(host)
            assert str(refused.value).isprintable()


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"])
def test_beyond_loopback(listen: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadRequest, match="beyond loopback there must be TLS"):
        parse_listen(listen)
    assert parse_listen(listen, anywhere=True)[1] == 1
    for name in ("example.com:1", "127.1:1", "0:1", "\x1b[2J:1"):
        with pytest.raises(BadRequest, match="--listen"):
            parse_listen(name, anywhere=True)
    with pytest.raises(SystemExit):
        main(["serve", "--sim", "churn", "--listen", listen])
    assert "--insecure" in capfd.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--tls-cert-file", "/nowhere"],
        ["--tls-private-key-file", "/nowhere"],
        ["--tls-cert-file", "/nowhere", "--tls-private-key-file", "/nowhere"],
        ["--client-ca-file", "/nowhere"],
        ["--token-auth-file", "/nowhere"],
        ["--token-auth-file", "/dev/null"],
        ["--resource", "v1/secrets:Secret=/elsewhere"],
        ["--resource", "v1/others:Other=/registry/secrets"],
        ["--warm", "secrets"],
    ],
)
def test_usage(flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--sim", "churn", *flags])
    assert ended.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1


CONTROLS = "\x1b[2Jx\r\ny\x00z\x85"


def test_nothing_of_a_request_is_said_as_it_came(
    caches: Caches, tokens: Tokens, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    raw = CONTROLS.encode("latin-1")
    for entrance in (Entrance(), Entrance(tokens=tokens)):
        for headers in ([], [(b"host", raw)], [(b"accept", raw)], [(b"user-agent", raw)],
                        bearer(raw), [*bearer(b"sesame"), (raw, raw)]):  # fmt: skip
            for path in (CONTROLS, "/api/v1/namespaces/" + CONTROLS + "/secrets",
                         "/api/v1/pods/" + CONTROLS):  # fmt: skip
                for query in (raw, b"watch=1&labelSelector=" + raw, b"limit=%1b%0a"):
                    answer = ask(caches, entrance, path, query, headers=headers, method="GET")
                    assert answer.body.decode().rstrip("\n").isprintable()
                    for name, value in answer.messages[0]["headers"]:
                        assert (name + value).decode().isprintable()
    assert not any(char in caplog.text for char in CONTROLS if not char.isprintable())
    assert capfd.readouterr() == ("", "")


def test_a_user_may_be_called_anything(caches: Caches) -> None:
    state = {"peercert": peer(("commonName", CONTROLS))}
    answer = ask(caches, Entrance(AskingCertificate()), "/api/v1/secrets", state=state)
    message = json.loads(answer.body)["message"]
    assert message.isprintable()
    assert r'User "\x1b[2Jx\r\ny\x00z\u0085" cannot list resource "secrets"' in message


@pytest.mark.parametrize(
    ("path", "query", "method", "message"),
    [
        ("/api/v1/secrets", b"", "GET",
         'secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API group'
         ' "" at the cluster scope'),
        ("/api/v1/secrets/", b"watch=1", "GET",
         'secrets is forbidden: User "system:anonymous" cannot watch resource "secrets" in API'
         ' group "" at the cluster scope'),
        ("/api/v1/namespaces/a/secrets/s", b"", "GET",
         'secrets "s" is forbidden: User "system:anonymous" cannot get resource "secrets" in API'
         ' group "" in the namespace "a"'),
        ("/api/v1/namespaces/a/secrets", b"", "POST",
         'secrets is forbidden: User "system:anonymous" cannot create resource "secrets" in API'
         ' group "" in the namespace "a"'),
    ],
)  # fmt: skip
def test_secrets_are_forbidden(
    caches: Caches, path: str, query: bytes, method: str, message: str
) -> None:
    answer = ask(caches, Entrance(), path, query, method=method)
    status = json.loads(answer.body)
    assert (answer.status, status["code"], status["reason"]) == (403, 403, "Forbidden")
    assert status["message"] == f"{message}: they need --allow-secrets"
    assert status["details"]["kind"] == "secrets"
    assert status["details"].get("name") == ("s" if path.endswith("/s") else None)


def test_secrets_are_not_discovered(caches: Caches) -> None:
    for path in ("/api/v1", "/", "/apis"):
        assert b"ecret" not in ask(caches, Entrance(), path).body
    known = served(allow_secrets=True)
    assert known.named("secrets") is not None
    shown = Caches(SharedModel(), known, allow_secrets=True)
    answer = ask(shown, Entrance(allow_secrets=True), "/api/v1")
    assert b'"secrets"' in answer.body
    shown.close()


SECRET = parse_resource("v1/secrets:Secret:namespaced")


def at(prefix: str) -> Resource:
    return Resource("x.io", "others", "Other", namespaced=True, versions=("v1",), storage=prefix)


@pytest.mark.parametrize(
    ("resource", "root", "hidden"),
    [
        (SECRET, ROOT, True),
        (parse_resource("v1/secrets:Secret=/elsewhere"), ROOT, True),
        (at("secrets"), ROOT, True),
        (at("secrets/a"), ROOT, True),
        (at("/registry/secrets"), ROOT, True),
        (at("/registry/secrets/a/b"), ROOT, True),
        (at("/registry"), ROOT, True),
        (at("/registry"), b"/other", False),
        (at("/other/secrets"), b"/other/", True),
        (at("secretstores"), ROOT, False),
        (at("x.io/secrets"), ROOT, False),
        (at("pods"), ROOT, False),
    ],
)
def test_no_cache_comes_over_secrets(resource: Resource, root: bytes, hidden: bool) -> None:
    """However a resource got there: from a flag, from an etcd's own definitions."""
    assert is_secret(resource, root) == hidden
    known = served([resource], root=root, allow_secrets=True)
    caches = Caches(SharedModel(), known, root=root)
    assert caches.hides(resource) == hidden
    if hidden:
        with pytest.raises(BadRequest, match="Secrets are among its keys"):
            served([resource], root=root)
        with pytest.raises(Forbidden):
            caches.of(resource)
    else:
        assert resource in served([resource], root=root).all
    caches.close()


def test_what_is_allowed_holds_no_key_of_a_secret() -> None:
    """All prefixes of one to four of these."""
    allowed = 0
    for length in range(1, 5):
        for parts in product(["registry", "secrets", "pods", "a"], repeat=length):
            resource = at("/" + "/".join(parts))
            if not is_secret(resource, ROOT):
                allowed += 1
                assert not b"/registry/secrets/a/s".startswith(resource.prefix())
                assert not resource.prefix().startswith(b"/registry/secrets/")
    assert allowed > 300

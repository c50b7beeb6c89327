"""`btreecache serve` over real TLS: kubectl with a token and with a certificate, and a reload."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.interop.clients.kubectl import Kubectl

pytestmark = pytest.mark.interop

TIMEOUT_S = 30


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True, timeout=30)


class Authority:
    """A directory with a CA of its own, `<name>.crt`, and what it signs."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._request(name, f"/CN={name}", "-x509", "-days", "2", "-out", f"{name}.crt")

    def sign(self, name: str, subject: str, extension: str) -> None:
        (self._directory / "extensions").write_text(extension)
        self._request(name, subject, "-out", f"{name}.csr")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{self._name}.crt", "-CAkey",
            f"{self._name}.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions",
            "-out", f"{name}.crt", cwd=self._directory,
        )  # fmt: skip

    def _request(self, name: str, subject: str, *more: str) -> None:
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", f"{name}.key", "-subj", subject, *more, cwd=self._directory,
        )  # fmt: skip


SERVER = "subjectAltName=IP:127.0.0.1,DNS:cache.local\n"
CLIENT = "extendedKeyUsage=clientAuth\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates and tokens."""
    directory = tmp_path_factory.mktemp("tls")
    authority, other = Authority(directory, "ca"), Authority(directory, "other")
    authority.sign("server", "/CN=server", SERVER)
    authority.sign("next", "/CN=next", SERVER)
    authority.sign("ann", "/O=dev/CN=ann", CLIENT)
    authority.sign("nobody", "/O=dev", CLIENT)
    other.sign("eve", "/CN=ann", CLIENT)
    (directory / "tokens").write_text('sesame,bob,1,"ops"\n')
    (directory / "tokens").chmod(0o644)
    return directory


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server for who has a certificate or a token, and its URL."""
    command = [
        sys.executable, "-m", "btreecache", "serve", "--sim", "kubernetes", "--objects", "60",
        "--writes", "0", "--warm", "pods", "--listen", "127.0.0.1:0", "--tls-cert-file",
        "server.crt", "--tls-private-key-file", "server.key", "--client-ca-file", "ca.crt",
        "--token-auth-file", "tokens",
    ]  # fmt: skip
    with (files / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=files
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("https://127.0.0.1:"), (files / "log").read_text()
        yield process, url
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0, (files / "log").read_text()
        said = (files / "log").read_text()
        assert "warning: everybody on this machine can read tokens" in said
        assert "Traceback" not in said
        assert "sesame" not in said
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()


def client_context(files: Path, name: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    if name:
        context.load_cert_chain(files / f"{name}.crt", files / f"{name}.key")
    return context


def test_kubectl(server: tuple[subprocess.Popen[str], str], files: Path, tmp_path: Path) -> None:
    kubectl = Kubectl(server[1], tmp_path)
    trust = "--certificate-authority", str(files / "ca.crt")
    token = kubectl.run("get", "pods", "-A", *trust, "--token", "sesame")
    assert len(token.splitlines()) > 10
    cert = "--client-certificate", str(files / "ann.crt"), "--client-key", str(files / "ann.key")
    assert kubectl.run("get", "pods", "-A", *trust, *cert) == token
    refused = kubectl.run("get", "pods", "-A", *trust, "--token", "wrong", code=1)
    assert "You must be logged in to the server" in refused
    hidden = kubectl.run("get", "--raw", "/api/v1/namespaces/a/secrets", *trust, *cert, code=1)
    assert 'Error from server (Forbidden): secrets is forbidden: User "ann"' in hidden
    untrusted = kubectl.run("get", "pods", "-A", "--token", "sesame", code=1)
    assert "x509" in untrusted


def test_who_is_let_in(server: tuple[subprocess.Popen[str], str], files: Path) -> None:
    _, url = server
    bearer = {"Authorization": "Bearer sesame"}
    for name, headers, path, wanted in (
        ("ann", {}, "/api", 200), ("", bearer, "/api", 200), ("", {}, "/api", 401),
        ("nobody", {}, "/api", 401), ("nobody", bearer, "/api", 200), ("", {}, "/livez", 200),
        ("", {**bearer, "Host": "evil.example"}, "/api", 200),
    ):  # fmt: skip
        with httpx.Client(verify=client_context(files, name), timeout=TIMEOUT_S) as client:
            assert client.get(url + path, headers=headers).status_code == wanted, name
    # Somebody else's authority: the handshake fails, whatever the certificate says.
    with (
        httpx.Client(verify=client_context(files, "eve"), timeout=TIMEOUT_S) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get(url + "/livez")
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https:", "http:") + "/livez", timeout=TIMEOUT_S)


def test_a_new_certificate_and_new_tokens(
    server: tuple[subprocess.Popen[str], str], files: Path
) -> None:
    process, url = server
    address = "127.0.0.1", int(url.rpartition(":")[2])
    context = client_context(files)

    def name() -> object:
        with (
            socket.create_connection(address, TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname="cache.local") as secure,
        ):
            return (secure.getpeercert() or {}).get("subject")

    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{url}/api", verify=context, headers=headers).status_code

    def signalled(reached: str) -> None:
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + TIMEOUT_S
        while reached not in str(name()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert reached in str(name())

    assert "server" in str(name())
    os.replace(files / "next.key", files / "server.key")
    signalled("server")  # half of a pair changes nothing
    os.replace(files / "next.crt", files / "server.crt")
    (files / "tokens").write_text("other,bob,1\n")
    signalled("next")
    assert (status("sesame"), status("other")) == (401, 200)

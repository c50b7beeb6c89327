"""kube-apiserver and apiextensions-apiserver as child processes on one etcd, on loopback.

`.ci/install-apiservers` builds them. One root signs a certificate for both servers and one of an
administrator (group system:masters), whom both believe.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.interop.etcd_server import free_port

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 70.0  # what they grant to requests under way
KUBE, EXTENSIONS = "kube-apiserver", "apiextensions-apiserver"
#: Where each keeps its objects in the etcd.
PREFIXES = {KUBE: "/registry", EXTENSIONS: "/registry-ext"}


def binary(name: str) -> Path:
    """A server that .ci/install-apiservers built. Raises FileNotFoundError."""
    configured = os.environ.get("BTREECACHE_APISERVERS_DIR")
    directory = Path(configured) if configured else ROOT / ".cache" / "apiservers"
    if not (directory / name).exists():
        raise FileNotFoundError(f"no {name} in {directory}: run .ci/install-apiservers")
    return directory / name


def openssl(where: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=where, check=True, capture_output=True, timeout=60)


@dataclass(frozen=True)
class Pki:
    """ca, server, admin: NAME.pem and NAME.key; account.key signs service accounts' tokens."""

    where: Path

    @classmethod
    def make(cls, where: Path) -> Pki:
        where.mkdir()
        openssl(where, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        openssl(where, "genrsa", "-out", "account.key", "2048")
        (where / "extensions").write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
        )
        for name, subject in (("server", "/CN=server"), ("admin", "/O=system:masters/CN=admin")):
            openssl(where, "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject,
                    "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
            openssl(where, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem",
                    "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                    "-extfile", "extensions", "-out", f"{name}.pem")  # fmt: skip
        return cls(where)

    def __getitem__(self, name: str) -> Path:
        return self.where / name

    def client_context(self) -> ssl.SSLContext:
        """The administrator, who trusts the root alone."""
        context = ssl.create_default_context(cafile=str(self["ca.pem"]))
        context.load_cert_chain(self["admin.pem"], self["admin.key"])
        return context

    def kubeconfig(self, url: str) -> Path:
        """A file with which a program is the administrator of the server at `url`."""
        path = self["kubeconfig"]
        path.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
            f"clusters: [{{name: c, cluster: {{server: '{url}', "
            f"certificate-authority: '{self['ca.pem']}'}}}}]\n"
            f"users: [{{name: u, user: {{client-certificate: '{self['admin.pem']}', "
            f"client-key: '{self['admin.key']}'}}}}]\n"
        )
        return path


class ApiServer:
    """One server. `with` starts it, waits until it is ready, and ends the process by its pid.

    `log`: where stdout and stderr of the process go, emptied first.
    """

    def __init__(self, name: str, pki: Pki, log: Path, flags: Sequence[str]) -> None:
        port = free_port()
        self.name = name
        self.url = f"https://127.0.0.1:{port}"
        self.log = log
        self._pki = pki
        self._command = [
            str(binary(name)),
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--etcd-prefix={PREFIXES[name]}",
            "--etcd-compaction-interval=1m",
            f"--tls-cert-file={pki['server.pem']}",
            f"--tls-private-key-file={pki['server.key']}",
            f"--client-ca-file={pki['ca.pem']}",
            *flags,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.ready_after_s = 0.0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> ApiServer:
        began = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            self._wait_until_ready(began + READY_TIMEOUT_S)
        except BaseException:
            self._kill()
            raise
        self.ready_after_s = time.monotonic() - began
        return self

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        answer = "nothing"
        with httpx.Client(verify=self._pki.client_context(), timeout=10) as client:
            while answer != "ok":
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = self.log.read_bytes()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{self.name} is not ready ({answer}): {tail}")
                time.sleep(0.1)
                try:
                    answer = client.get(f"{self.url}/readyz").text
                except httpx.TransportError as error:
                    answer = repr(error)

    def stop(self) -> int:
        """SIGTERM -> the exit code, that of SIGKILL if it doesn't end in time."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        finally:
            self._kill()

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()


def kube_apiserver(etcd: str, pki: Pki, log: Path, *flags: str) -> ApiServer:
    """On the etcd at HOST:PORT. Secrets and events have no watch cache: etcd answers for them."""
    return ApiServer(
        KUBE, pki, log,
        [
            f"--etcd-servers=http://{etcd}",
            "--advertise-address=192.0.2.2",  # loopback is refused; nobody connects to it
            "--service-cluster-ip-range=10.0.0.0/16",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki['account.key']}",
            f"--service-account-signing-key-file={pki['account.key']}",
            "--watch-cache-sizes=secrets#0",
            *flags,
        ],
    )  # fmt: skip


def apiextensions_apiserver(
    etcd: str, pki: Pki, log: Path, kube: ApiServer, *flags: str
) -> ApiServer:
    """On the etcd at HOST:PORT; it asks `kube` whom to believe and who may do what."""
    kubeconfig = pki.kubeconfig(kube.url)
    off = ["NamespaceLifecycle", "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook",
           "MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"]  # fmt: skip
    return ApiServer(
        EXTENSIONS, pki, log,
        [
            f"--etcd-servers=http://{etcd}",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--authentication-skip-lookup",
            f"--disable-admission-plugins={','.join(off)}",
            "--enable-priority-and-fairness=false",
            *flags,
        ],
    )  # fmt: skip

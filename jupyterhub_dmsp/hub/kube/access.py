"""Where the cluster's API is and who we are there: from inside a pod, or from a kubeconfig file."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jupyterhub_dmsp.errors import DmspError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FRESH = 60.0
"""Seconds for which a token that was read is used: the cluster writes a new one long before the old one ends."""


class NoCluster(DmspError):
    """There is no way to the cluster's API, or not one that we know to go."""


@dataclass
class Access:
    """The API's address and our credentials.

    Attributes:
        url: of the API server.
        namespace: ours, where nothing else is said.
        tls: trusts the server, and holds the client certificate where there is one.
        token_file: file with a bearer token, which may be written anew at any time.
    """

    url: str
    namespace: str
    tls: ssl.SSLContext
    token_file: Path | None = None
    _token: str = field(default="", repr=False)
    _read: float = field(default=-FRESH, repr=False)

    def headers(self) -> dict[str, str]:
        """What a request says about who asks."""
        now = time.monotonic()
        if self.token_file is not None and now - self._read > FRESH:
            try:
                self._token = self.token_file.read_text().strip()
            except OSError as error:
                raise NoCluster(f"The token for the cluster cannot be read: {error.strerror}.") from error
            self._read = now
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def find(kubeconfig: str = "") -> Access:
    """The way to the cluster.

    Args:
        kubeconfig: path of a kubeconfig file; empty for the service account of the pod that we run in.

    Raises:
        NoCluster: with a sentence.
    """
    return from_file(Path(kubeconfig)) if kubeconfig else from_pod()


def from_pod(environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
    """As a pod's service account."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        raise NoCluster(
            "The hub runs in no pod with a service account.", "Set `KubeProfileSpawner.kubeconfig` to a file."
        )
    try:
        namespace = (account / "namespace").read_text().strip()
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise NoCluster(f"The service account's files cannot be read: {error.strerror}.") from error
    name = f"[{host}]" if ":" in host else host
    return Access(f"https://{name}:{port}", namespace, tls, account / "token")


def from_file(path: Path) -> Access:
    """As the user of a kubeconfig's current context; certificates and tokens, no programs that fetch them."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        if "exec" in user or "auth-provider" in user:
            raise NoCluster(
                f"The user of the kubeconfig {path} gets its credentials from a program.",
                "Use a client certificate or a token file.",
            )
        access = Access(
            cluster["server"], context.get("namespace", "default"), _tls(path.parent, cluster, user)
        )
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise NoCluster(f"The kubeconfig {path}, or a file that it names, cannot be used: {error}.") from error
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise NoCluster(f"The kubeconfig {path} has no complete current context.") from error
    if "tokenFile" in user:
        access.token_file = path.parent / user["tokenFile"]
    elif "token" in user:
        access._token = user["token"]
    return access


def _named(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    return next(dict(entry) for entry in config[kind] if entry["name"] == name)


def _tls(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority, data = cluster.get("certificate-authority"), cluster.get("certificate-authority-data")
    tls = ssl.create_default_context(
        cafile=str(folder / authority) if authority else None,
        cadata=base64.b64decode(data).decode() if data else None,
    )
    if "client-certificate" in user:
        tls.load_cert_chain(folder / user["client-certificate"], folder / user["client-key"])
    elif "client-certificate-data" in user:
        # The library reads certificates from files only: one for a moment, open to us alone.
        with tempfile.NamedTemporaryFile() as file:
            for part in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[part]) + b"\n")
            file.flush()
            tls.load_cert_chain(file.name)
    return tls

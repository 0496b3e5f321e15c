"""Boxes for tests and benchmarks, started with the ``dmsp`` command as an admin would."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def free_port(width: int = 12) -> int:
    """A port below the ephemeral range with ``width - 1`` free ones above it."""
    for base in range(18000 + os.getpid() % 500 * 20, 32000, width):
        sockets = []
        try:
            for port in range(base, base + width):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
    raise RuntimeError("no free ports")


def can_run_as(uid: int) -> bool:
    """Whether another user may enter this checkout, and so run what is installed in it."""
    command = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", sys.executable, "-c", ""]
    return subprocess.run(command, cwd="/", capture_output=True, timeout=30, check=False).returncode == 0


@dataclass
class Box:
    """A box that was started with the ``dmsp`` command."""

    state: Path
    port: int
    config: Path | None = None
    uid: int | None = None

    def dmsp(
        self, *arguments: str, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a ``dmsp`` command on this box's state."""
        command = [sys.executable, "-m", "jupyterhub_dmsp.cli", *arguments, "--state", str(self.state)]
        if self.uid is not None:
            home, uid = str(self.state.parent), str(self.uid)
            command = [
                "setpriv",
                "--reuid",
                uid,
                "--regid",
                uid,
                "--clear-groups",
                "env",
                f"HOME={home}",
                *command,
            ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def up(self, timeout: float = 600) -> None:
        more = ["--config", str(self.config)] if self.config else []
        self.dmsp("up", "--detach", "--port", str(self.port), *more, timeout=timeout)

    def down(self) -> None:
        self.dmsp("down", check=False)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.dmsp("status", "--json", check=False).stdout)
        return found

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def passwords(self) -> dict[str, str]:
        return {user["name"]: user["password"] for user in json.loads(self.dmsp("users", "--json").stdout)}

    def part(self, name: str) -> dict[str, Any]:
        return next(part for part in self.status["parts"] if part["name"] == name)

    def secret(self, name: str) -> str:
        return (self.state / "secrets" / name).read_text().strip()


def running_or_new(variable: str, config: Path | None = None) -> Iterator[Box]:
    """The box of the state that an environment variable names (while a test is written), else a new one."""
    state = os.environ.get(variable)
    if not state:
        yield from make_box(config)
        return
    box = Box(Path(state), 0)
    box.port = int(box.status["address"].rsplit(":", 1)[1].strip("/"))
    yield box


def make_box(
    config: Path | None = None,
    uid: int | None = None,
    around: Callable[[Box], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Iterator[Box]:
    """Start a box in a new directory; end it and remove every trace.

    Args:
        config: its ``dmsp.yaml``.
        uid: the user who runs it; ourselves when None.
        around: entered before the box starts and left when it has ended, such as for a disk of its own.
    """
    directory = Path(tempfile.mkdtemp(prefix="dmsp-test-"))
    directory.chmod(0o755)
    box = Box(directory / "state", free_port(), config, uid)
    if uid is not None:
        os.chown(directory, uid, uid)
    try:
        with around(box):
            try:
                box.up()
                yield box
            finally:
                box.down()
                keep = os.environ.get("DMSP_TEST_LOGS")
                if keep and (box.state / "logs").exists():  # a test may have lost the box on purpose
                    shutil.copytree(box.state / "logs", Path(keep) / directory.name, dirs_exist_ok=True)
    finally:
        box.dmsp("reset", "--yes", check=False)
        shutil.rmtree(directory, ignore_errors=True)

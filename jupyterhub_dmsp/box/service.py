"""The box as a systemd service: the unit file, and what the service tells systemd (sd_notify(3))."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.errors import DmspError

NAME = "dmsp.service"
#: Seconds: a first start installs environments and makes the demo lake.
START_TIMEOUT = 1800
#: Seconds: the box ends within 15.
STOP_TIMEOUT = 30

_UNIT = """\
# Written by `dmsp install-service`; change with `systemctl {user}edit dmsp`.
[Unit]
Description=Virtual Research Environment of the Dark Matter Science Project ({state})
{after}StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
# The box says when all parts are healthy, and restarts single parts by itself.
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory=/
{environment}Restart=on-failure
RestartSec=5
TimeoutStartSec={start}
TimeoutStopSec={stop}
# The box ends its parts and sessions in order; what is left after TimeoutStopSec is killed.
KillMode=mixed
# Each session has a control group of its own, with its limits.
Delegate=yes
LimitNOFILE=65536
UMask=0022

[Install]
WantedBy={target}
"""


def notify(message: str) -> None:
    """Tell systemd something, such as ``READY=1``; nothing happens where no systemd asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1)
            channel.sendto(message.encode(), address)
    except OSError as error:
        sys.stderr.write(f"dmsp: systemd could not be told {message}: {error.strerror}\n")


@dataclass(frozen=True)
class Service:
    """A unit for one box.

    Attributes:
        state: its state.
        port: public port.
        config: ``dmsp.yaml``, or None.
        user: a unit of the user's own service manager instead of the system's.
    """

    state: State
    port: int
    config: Path | None
    user: bool

    @property
    def path(self) -> Path:
        """Where the unit belongs."""
        if not self.user:
            return Path("/etc/systemd/system", NAME)
        base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return Path(base, "systemd", "user", NAME)

    def command(self) -> list[str]:
        """The ``dmsp`` beside the Python that runs now, or that Python with our module."""
        program = Path(sys.prefix, "bin", "dmsp")
        start = [str(program)] if program.exists() else [sys.executable, "-m", "jupyterhub_dmsp.cli"]
        config = ["--config", str(self.config.absolute())] if self.config else []
        return [*start, "up", "--state", str(self.state.path), "--port", str(self.port), *config]

    def text(self) -> str:
        """The unit (systemd.service(5))."""
        return _UNIT.format(
            user="--user " if self.user else "",
            state=_escape(str(self.state.path)),
            # A user's manager has no network target, and no home to be told.
            after="" if self.user else "Wants=network-online.target\nAfter=network-online.target\n",
            command=" ".join(_quote(word) for word in self.command()),
            environment="" if self.user else "Environment=HOME=%h\n",
            start=START_TIMEOUT,
            stop=STOP_TIMEOUT,
            target="default.target" if self.user else "multi-user.target",
        )

    def install(self) -> None:
        """Write the unit; raises :class:`DmspError` where there is no systemd, or the file cannot be written."""
        if not systemd_runs():
            raise DmspError(
                "This machine is not run by systemd.",
                "`dmsp install-service --print` shows the unit; `dmsp up --detach` runs the box without a service.",
            )
        if not self.user and os.geteuid() != 0:
            raise DmspError(
                "Only root may install a system service.", "Use sudo, or --user for one of your own."
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self.text())
            self.path.chmod(0o644)
        except OSError as error:
            raise DmspError(f"{self.path} cannot be written: {error.strerror}.") from error

    def next_commands(self) -> list[str]:
        """What makes the service run, and shows it."""
        control = "systemctl --user" if self.user else "systemctl"
        linger = [f"loginctl enable-linger {shlex.quote(_user())}"] if self.user else []
        return [f"{control} daemon-reload", *linger, f"{control} enable --now dmsp", f"{control} status dmsp"]


def systemd_runs() -> bool:
    """Whether systemd is this machine's init (sd_booted(3)) and its command is there."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _user() -> str:
    return os.environ.get("USER") or str(os.geteuid())


def _escape(text: str) -> str:
    """Percent signs are specifiers in a unit."""
    return text.replace("%", "%%")


def _quote(word: str) -> str:
    """A word of ExecStart: quoted where needed, with nothing expanded (systemd.service(5), Command lines)."""
    text = _escape(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(c in word for c in " \t\"'\\;") else text

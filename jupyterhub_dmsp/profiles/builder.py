"""The steps that make one environment, each with the reason for it.

Nothing here decides *whether* to build: see :mod:`jupyterhub_dmsp.profiles.environments`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.profiles.kernels import Kernel, write_kernelspecs

BUILDER_VERSION = 1
"""Raise it when a change of the steps must rebuild every environment."""

MARKER = ".dmsp-environment.json"
KERNEL_FOLDER = Path(__file__).resolve().parent.parent / "kernel"

_CHAIN = "\u00d7\u2570\u2500\u25b6\u251c\u2502 "  # uv draws its chain of causes with these
_CAUSE = re.compile(r"^(error|cause):")
_FORGET = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON")
_PROBE = """
import importlib.metadata, json, platform, sys
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
json.dump({"python": platform.python_version(), "prefix": sys.prefix, "packages": found}, sys.stdout)
"""


class BuildFailed(DmspError):
    """An environment cannot be built; ``log`` names the file with the whole story."""

    def __init__(self, slug: str, cause: str, log: Path) -> None:
        super().__init__(
            f"The environment {slug} cannot be built: {cause.rstrip('.')}.", f"The build's log is {log}."
        )
        self.log = log


@dataclass(frozen=True)
class Progress:
    """One step of a build, readable as it is.

    Attributes:
        stage: one of ``wait``, ``python``, ``download``, ``install``, ``kernels``, ``check``, ``ready``.
        message: such as "Installing 84 packages".
        fraction: how much is done, 0 to 1; None when nobody knows.
    """

    stage: str
    message: str
    fraction: float | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class EnvironmentSpec:
    """What makes an environment: its digest is over all of it.

    Attributes:
        slug: short name, part of the folder's name.
        lock: requirements with versions and hashes (``uv pip compile --generate-hashes``).
        python: minor version, such as ``3.11``.
        kernels: kernels that it offers; an environment without kernels gets no ``dmsp`` hook either.
    """

    slug: str
    lock: Path
    python: str = "3.11"
    kernels: tuple[Kernel, ...] = field(default=())

    def digest(self) -> str:
        """Twelve hex digits over lock, Python, kernels, the kernel hook's place and the builder's version."""
        try:
            lock = self.lock.read_bytes()
        except OSError as error:
            raise DmspError(
                f"The lock of the environment {self.slug} cannot be read: {error.strerror}."
            ) from error
        about = {
            "builder": BUILDER_VERSION,
            "python": self.python,
            "lock": hashlib.sha256(lock).hexdigest(),
            "kernels": [kernel.model_dump() for kernel in self.kernels],
            "hook": str(KERNEL_FOLDER) if self.kernels else "",
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """``<slug>-<digest>``."""
        return f"{self.slug}-{self.digest()}"


@dataclass(frozen=True)
class Manifest:
    """What the marker of a finished environment says."""

    slug: str
    digest: str
    python: str
    packages: Mapping[str, str]
    built_at: str

    @classmethod
    def read(cls, environment: Path) -> Manifest | None:
        """The manifest of a finished environment; None when the marker is missing or unreadable."""
        try:
            data = json.loads((environment / MARKER).read_text(encoding="utf-8"))
            return cls(**{name: data[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, environment: Path) -> None:
        """Write the marker, whole or not at all; it is the last step of a build."""
        part = environment / f"{MARKER}.part"
        text = json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}, indent=1)
        part.write_text(text, encoding="utf-8")
        part.chmod(0o644)
        part.replace(environment / MARKER)


@lru_cache
def find_uv() -> str:
    """The ``uv`` binary of the wheel beside us; raises :class:`DmspError` when it is not installed."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise DmspError("uv is not installed.", "Install jupyterhub-dmsp[local].") from error


def reachable_by_all(path: Path) -> bool:
    """Whether any user of the machine can execute this file: its own mode, and each folder's above it."""
    try:
        real = path.resolve(strict=True)
        needs = stat.S_IXOTH | stat.S_IROTH
        return bool(real.stat().st_mode & needs == needs) and all(
            folder.stat().st_mode & stat.S_IXOTH for folder in (*real.parents, *path.absolute().parents)
        )
    except OSError:
        return False


def find_python(version: str) -> Path | None:
    """An installed interpreter of this minor version; as root only one that every user can execute.

    None means that uv has to bring one.
    """
    candidates = [Path(folder) / f"python{version}" for folder in ("/usr/bin", "/usr/local/bin")]
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        candidates.append(Path(getattr(sys, "_base_executable", sys.executable)))
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and (os.geteuid() != 0 or reachable_by_all(candidate)):
            return candidate
    return None


def clean_environ(**extra: str) -> dict[str, str]:
    """Our environment without what would lead uv or a Python astray."""
    kept = {name: value for name, value in os.environ.items() if name not in _FORGET}
    return {**kept, **extra}


async def run_lines(
    argv: list[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    keep_open: tuple[int, ...] = (),
    user: tuple[int, int] | None = None,
    cwd: str | None = None,
) -> AsyncGenerator[str, None]:
    """Run a command and yield its output line by line; raises :class:`ChildProcessError` when it fails.

    The command gets a process group of its own, which is killed when the consumer stops, is cancelled or
    ``timeout`` seconds pass (:class:`TimeoutError`). ``keep_open`` are descriptors that it inherits: a lock's
    descriptor there keeps the lock held until the command is gone, even when we are killed. ``user`` is the uid
    and gid that it runs under, without further groups.
    """
    identity: dict[str, Any] = {}
    if user:
        identity = {"user": user[0], "group": user[1], "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        start_new_session=True,
        umask=0o022,
        pass_fds=keep_open,
        cwd=cwd,
        **identity,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            async for raw in process.stdout:
                yield raw.decode(errors="replace").rstrip()
            code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if code:
        raise ChildProcessError(f"{Path(argv[0]).name} {argv[1]} ended with status {code}")


async def probe(environment: Path, timeout: float = 60) -> dict[str, Any]:
    """Start the environment's interpreter and ask for its version and packages.

    Raises:
        ChildProcessError: it does not start, or answers nonsense.
        TimeoutError: it does not answer.
    """
    python = environment / "bin" / "python"
    try:
        lines = [
            line
            async for line in run_lines([str(python), "-I", "-c", _PROBE], env=clean_environ(), timeout=timeout)
        ]
        answer: dict[str, Any] = json.loads(lines[-1])
    except OSError as error:
        raise ChildProcessError(f"its interpreter does not start: {error}") from error
    except (ValueError, IndexError) as error:
        raise ChildProcessError("its interpreter does not answer") from error
    return answer


def open_to_all(environment: Path) -> None:
    """Make every file readable and every folder enterable by everybody.

    A cache that was filled under a strict umask hands its modes on through the hard links.
    """
    for folder, _, files in os.walk(environment):
        _add_mode(folder, 0o555)
        for name in files:
            _add_mode(os.path.join(folder, name), 0o444)  # noqa: PTH118 - ten thousands of files


def _add_mode(path: str, bits: int) -> None:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return
    mode = stat.S_IMODE(status.st_mode)
    wanted = mode | bits | (0o111 if mode & 0o100 else 0)
    if wanted != mode:
        os.chmod(path, wanted)  # noqa: PTH101 - likewise


class Build:
    """One build of one environment into its final folder; :meth:`run` leaves a marker as the last thing.

    The folder is the final one from the start because scripts and byte code carry absolute paths; a folder
    without marker is no environment.
    """

    def __init__(
        self, spec: EnvironmentSpec, target: Path, *, cache: Path, log: Path, timeout: float, lock_fd: int
    ) -> None:
        self.spec, self.target, self.cache, self.log = spec, target, cache, log
        self.timeout, self.lock_fd = timeout, lock_fd
        self.tail: list[str] = []

    async def run(self, report: Report) -> Manifest:
        """Build; raises :class:`BuildFailed`. The caller holds the lock and removes what is left on failure."""
        try:
            await self._python(report)
            await self._install(report)
            report(Progress("kernels", "Registering kernels", 0.9))
            await asyncio.to_thread(self._finish_files)
            report(Progress("check", "Checking the environment", 0.95))
            answer = await probe(self.target)
            self._check_version(answer["python"])
        except TimeoutError as error:
            raise self._failed(f"a step took longer than {self.timeout:.0f} s") from error
        except ChildProcessError as error:
            raise self._failed(self._reason(str(error))) from error
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        manifest = Manifest(
            slug=self.spec.slug,
            digest=self.spec.digest(),
            python=answer["python"],
            packages=dict(sorted(answer["packages"].items(), key=lambda item: item[0].lower())),
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        await asyncio.to_thread(manifest.write, self.target)
        return manifest

    async def _python(self, report: Report) -> None:
        version = self.spec.python
        python = find_python(version)
        arguments = ["venv", "--no-project", "--python"]
        if python:
            report(Progress("python", f"Preparing Python {version}", 0.02))
            arguments.append(str(python))
        else:
            report(Progress("python", f"Fetching Python {version}", None))
            arguments += [version, "--managed-python"]
        async for _ in self._uv(*arguments, str(self.target)):
            pass

    async def _install(self, report: Report) -> None:
        # A lock is complete, there is nothing to resolve; byte code now, because a read-only environment without
        # it costs every start of a kernel three times as much.
        arguments = ["pip", "install", "--no-deps", "--require-hashes"]
        arguments += ["--link-mode=hardlink", "--compile-bytecode"]
        arguments += ["--python", str(self.target / "bin" / "python"), "-r", str(self.spec.lock)]
        count = await asyncio.to_thread(count_packages, self.spec.lock)
        report(Progress("download", f"Collecting {count} packages", 0.05))
        async for line in self._uv(*arguments):
            if match := re.match(r"\s*Downloading (\S+) \((\S+)\)", line):
                report(Progress("download", f"Downloading {match[1]} ({match[2]})", None))
            elif match := re.match(r"Prepared (\d+) packages?", line):
                report(Progress("install", f"Installing {count} packages", 0.6))
            elif match := re.match(r"Installed (\d+) packages?", line):
                report(Progress("install", f"Compiling {match[1]} packages", 0.7))

    async def _uv(self, *arguments: str) -> AsyncGenerator[str, None]:
        # Python interpreters that uv brings lie beside the environments: other users cannot enter our home.
        env = clean_environ(
            UV_CACHE_DIR=str(self.cache),
            UV_PYTHON_INSTALL_DIR=str(self.target.parent / ".python"),
            UV_NO_PROGRESS="1",
            NO_COLOR="1",
        )
        argv = [find_uv(), *arguments]
        self._write_log(f"$ uv {' '.join(arguments)}")
        async with contextlib.aclosing(
            run_lines(argv, env=env, timeout=self.timeout, keep_open=(self.lock_fd,))
        ) as lines:
            async for line in lines:
                self._write_log(line)
                self.tail = [*self.tail[-30:], line]
                yield line

    def _write_log(self, line: str) -> None:
        # A full disk must not hide the sentence that says so.
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def _finish_files(self) -> None:
        if self.spec.kernels:
            site = self.target / "lib" / f"python{self.spec.python}" / "site-packages"
            (site / "dmsp.pth").write_text(f"{KERNEL_FOLDER}\n", encoding="utf-8")
        write_kernelspecs(self.target, self.spec.slug, self.spec.kernels)
        open_to_all(self.target)

    def _check_version(self, found: str) -> None:
        if not found.startswith(f"{self.spec.python}."):
            raise ChildProcessError(f"it has Python {found} instead of {self.spec.python}")

    def _reason(self, fallback: str) -> str:
        """uv's own sentence: the line after ``error:``, or the last one of a chain of causes."""
        for line in self.tail:
            # Below this line uv prints both hashes, which as the last words would say nothing.
            if match := re.search(r"Hash mismatch for `([^`]+)`", line):
                return f"the package {match[1]} does not have the hash that the lock expects"
        for line in reversed(self.tail):
            text = _CAUSE.sub("", line.strip().lstrip(_CHAIN)).strip()
            if text and not text.startswith(("hint:", "help:")) and line.strip()[:1] not in "+-~":
                return text[:300]
        return fallback

    def _failed(self, cause: str) -> BuildFailed:
        self._write_log(f"failed: {cause}")
        return BuildFailed(self.spec.slug, cause, self.log)


def count_packages(lock: Path) -> int:
    """How many packages a lock pins."""
    return sum(
        1 for line in lock.read_text(encoding="utf-8").splitlines() if re.match(r"[A-Za-z0-9].*==", line)
    )

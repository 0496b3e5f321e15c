"""Environments under one root: built once, shared by everybody, rebuilt when broken.

>>> environments = Environments(state / "envs")
>>> python = await environments.ensure(spec, print) / "bin" / "python"

Guarantees:

- Callers of one process share one build; between processes a file lock does. uv inherits the lock's
  descriptor, so a build whose owner was killed is never joined by a second writer.
- The marker is written last. A folder without it, with another digest in it, or whose interpreter does not
  start or has another version, is removed and built again.
- A build that fails or whose last caller is cancelled leaves no folder, only its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_dmsp.profiles.builder import (
    Build,
    BuildFailed,
    EnvironmentSpec,
    Manifest,
    Progress,
    Report,
    clean_environ,
    find_uv,
    probe,
)

__all__ = ["BuildFailed", "EnvironmentSpec", "Environments", "Manifest", "Progress", "Report"]

log = logging.getLogger(__name__)

_FOLDER = re.compile(r"^[a-z0-9][a-z0-9-]*-[0-9a-f]{12}$")


@dataclass
class _Shared:
    """A build under way in this process, and who listens to it."""

    task: asyncio.Task[Path]
    listeners: list[Report] = field(default_factory=list)
    callers: int = 0


class Environments:
    """All environments below ``root``; use one instance in one event loop.

    Args:
        root: folder for the environments, made when missing. Every user of the machine can read it.
        cache: uv's cache. By default uv's own one when it is on the same filesystem (what was fetched once is
            not fetched again, hard links cost no space), else ``root/.uv-cache``. Files are hard links into it:
            who can write the cache can change the environments.
        logs: folder of the build logs, ``root/.logs`` by default.
        timeout: seconds that one step of a build may take.
    """

    def __init__(
        self, root: Path, *, cache: Path | None = None, logs: Path | None = None, timeout: float = 1800
    ) -> None:
        self.root = root.absolute()
        self.logs = logs or self.root / ".logs"
        self.timeout = timeout
        self._cache = cache
        self._shared: dict[str, _Shared] = {}
        self._probed: dict[str, tuple[int, int]] = {}

    def path(self, spec: EnvironmentSpec) -> Path:
        """Where the environment is, or will be."""
        return self.root / spec.folder

    def manifest(self, spec: EnvironmentSpec) -> Manifest | None:
        """Versions of what is in a finished environment; None when it is not there."""
        return Manifest.read(self.path(spec))

    def is_ready(self, spec: EnvironmentSpec) -> bool:
        """Whether the environment is finished and its interpreter is there; reads two files, starts nothing."""
        return self._fault(spec) is None

    async def ensure(self, spec: EnvironmentSpec, progress: Report | None = None) -> Path:
        """The environment's folder, built if need be.

        Raises:
            BuildFailed: with one sentence; nothing but the log is left.
        """
        name = spec.folder
        shared = self._shared.get(name)
        if shared is None:
            shared = _Shared(asyncio.create_task(self._ensure(spec, name), name=f"environment {name}"))
            self._shared[name] = shared
            shared.task.add_done_callback(lambda _: self._forget(name, shared))
        shared.callers += 1
        if progress:
            shared.listeners.append(progress)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.callers -= 1
            if progress:
                shared.listeners.remove(progress)
            if not shared.callers and not shared.task.done():
                self._forget(name, shared)
                shared.task.cancel()
                await asyncio.wait([shared.task])

    async def remove_stale(self, keep: Iterable[EnvironmentSpec]) -> list[str]:
        """Remove environments that none of ``keep`` needs, no process uses and nobody is building.

        Returns:
            The names of the folders that are gone.
        """
        wanted = {spec.folder for spec in keep}
        return await asyncio.to_thread(self._remove_stale, wanted)

    def _forget(self, name: str, shared: _Shared) -> None:
        if self._shared.get(name) is shared:
            del self._shared[name]

    def _report(self, name: str, progress: Progress) -> None:
        shared = self._shared.get(name)
        for listener in list(shared.listeners) if shared else []:
            try:
                listener(progress)
            except Exception:  # one listener's fault must not end the build of all
                log.exception("A listener of the build of %s failed", name)

    async def _ensure(self, spec: EnvironmentSpec, name: str) -> Path:
        def report(progress: Progress) -> None:
            self._report(name, progress)

        target = self.root / name
        if await self._usable(spec, target) is None:
            return target
        await asyncio.to_thread(self._prepare_root)
        async with self._locked(name, report) as lock_fd:
            # Somebody else may have built it while we waited for the lock.
            fault = await self._usable(spec, target)
            if fault is None:
                return target
            log.info("Building %s: %s", name, fault)
            await self._build(spec, target, lock_fd, report)
        report(Progress("ready", "The environment is ready", 1.0))
        return target

    async def _build(self, spec: EnvironmentSpec, target: Path, lock_fd: int, report: Report) -> None:
        await asyncio.to_thread(_remove, target)
        cache = self._cache if self._cache else await asyncio.to_thread(_default_cache, self.root)
        logfile = self.logs / f"{target.name}.log"
        logfile.unlink(missing_ok=True)
        build = Build(spec, target, cache=cache, log=logfile, timeout=self.timeout, lock_fd=lock_fd)
        started = time.monotonic()
        try:
            await build.run(report)
        except BaseException:
            # In a thread that cancellation does not reach: what is left must be gone before the lock is.
            await asyncio.shield(asyncio.to_thread(_remove, target))
            raise
        self._remember(target)
        log.info("Built %s in %.1f s", target.name, time.monotonic() - started)

    async def _usable(self, spec: EnvironmentSpec, target: Path) -> str | None:
        """Why the environment cannot be used, None when it can; its interpreter is started once per process."""
        fault = self._fault(spec)
        if fault or self._probed.get(target.name) == self._stamp(target):
            return fault
        try:
            answer = await probe(target)
        except (ChildProcessError, TimeoutError) as error:
            return str(error) or "its interpreter does not answer"
        if not answer["python"].startswith(f"{spec.python}."):
            return f"it has Python {answer['python']}"
        self._remember(target)
        return None

    def _fault(self, spec: EnvironmentSpec) -> str | None:
        target = self.path(spec)
        manifest = Manifest.read(target)
        if manifest is None:
            return "it is not there" if not target.exists() else "its build did not finish"
        if manifest.digest != spec.digest():
            return "its marker is of another environment"
        if not os.access(target / "bin" / "python", os.X_OK):
            return "its interpreter is gone"
        return None

    def _stamp(self, target: Path) -> tuple[int, int]:
        """Changes when the interpreter behind ``bin/python`` does, such as after an upgrade of the system's."""
        try:
            status = (target / "bin" / "python").stat()
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def _remember(self, target: Path) -> None:
        self._probed[target.name] = self._stamp(target)

    def _prepare_root(self) -> None:
        for folder in (self.root, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)

    @contextlib.asynccontextmanager
    async def _locked(self, name: str, report: Report) -> AsyncGenerator[int, None]:
        """Hold the lock of one environment; waits for another process without blocking the loop."""
        descriptor = os.open(self.root / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            told = False
            while not _try_lock(descriptor):
                if not told:
                    report(Progress("wait", "Another process is preparing this environment", None))
                    told = True
                await asyncio.sleep(0.1)
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove_stale(self, wanted: set[str]) -> list[str]:
        if not self.root.is_dir():
            return []
        removed = []
        used = _paths_in_use(self.root)
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir() or not _FOLDER.match(folder.name) or folder.name in wanted | used:
                continue
            lock = self.root / f".{folder.name}.lock"
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if _try_lock(descriptor):
                    _remove(folder)
                    removed.append(folder.name)
            finally:
                os.close(descriptor)
        return removed


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Remove a folder; its marker goes first, so that what a crash leaves is no environment."""
    if not folder.exists():
        return
    for marker in folder.glob(".dmsp-environment.json*"):
        marker.unlink(missing_ok=True)
    shutil.rmtree(folder)


def _default_cache(root: Path) -> Path:
    """uv's own cache where hard links from it into ``root`` are possible, else one beside the environments."""
    answer = subprocess.run(
        [find_uv(), "cache", "dir", "--no-config"],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    own = Path(answer.stdout.strip()) if answer.returncode == 0 and answer.stdout.strip() else None
    if own is None:
        return root / ".uv-cache"
    existing = next(folder for folder in (own, *own.parents) if folder.exists())
    return own if existing.stat().st_dev == root.stat().st_dev else root / ".uv-cache"


def _paths_in_use(root: Path) -> set[str]:
    """Names of environments that stand in a running process's command line."""
    names: set[str] = set()
    pattern = re.compile(re.escape(os.fsencode(f"{root}/")) + rb"([^/\0]+)")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            names.update(os.fsdecode(found) for found in pattern.findall(entry.read_bytes()))
    return names

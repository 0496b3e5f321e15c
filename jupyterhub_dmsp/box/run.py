"""Bringing a box up and down: the work behind the ``dmsp`` command."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import psutil

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.box import display, doctor, leftovers, migrations, service, soundness
from jupyterhub_dmsp.box.issuer import accounts
from jupyterhub_dmsp.box.logs import tail
from jupyterhub_dmsp.box.state import State
from jupyterhub_dmsp.box.supervisor import Part, StateName, Supervisor
from jupyterhub_dmsp.box.vre import Vre
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub.local import records
from jupyterhub_dmsp.settings import Log, Settings
from jupyterhub_dmsp.shared import dmsp_log

#: Seconds for parts and sessions together, for what comes after them, and (whatever happens) for all of it.
END_WITHIN, CLEAN_WITHIN, ALL_WITHIN = 10.5, 2.5, 14
KILL_TIMEOUT = 5.0
DETACH_TIMEOUT = 1800.0
RESTART_TIMEOUT = 180.0

log = logging.getLogger("dmsp.box")


def _check_machine(state: State, port: int) -> None:
    """Refuse at once, with all the remedies, what cannot work."""
    missing = [f for f in doctor.examine(state, port) if f.needed and not f.ok]
    if missing:
        text = " ".join(f"{finding.text} ({finding.remedy})" for finding in missing)
        raise DmspError(f"This machine cannot run the box: {text}", "`dmsp doctor` shows it all.")


def _log_to(state: State, chosen: Log) -> None:
    handler = RotatingFileHandler(state / "logs" / "box.log", maxBytes=5_000_000, backupCount=3)
    environment = dmsp_log.variables("box", chosen.format, chosen.of("box"))
    dmsp_log.start("box", rid=tracing.current, handler=handler, environment=environment)


def foreground(
    state: State, settings: Settings, settings_file: Path | None, port: int, progress: display.Progress
) -> None:
    """Run a box until a signal asks it to end; raises :class:`DmspError` when it cannot be brought up."""
    # A core dump of the hub would hold everybody's tokens. Users may raise the limit for their own programs.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    state.open()
    with state.locked():
        _log_to(state, settings.log)
        asyncio.run(leftovers.end_parts(state))
        for name in soundness.check(state):
            progress.say(f"{name} was damaged and is made anew; `dmsp logs box` says what that means.")
        migrations.upgrade(state, progress.say)
        _check_machine(state, port)
        vre = Vre(state, settings, settings_file, state.ports(port))
        asyncio.run(_serve(state, vre, progress))


async def _serve(state: State, vre: Vre, progress: display.Progress) -> None:
    begin = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    report: dict[str, Any] = {"address": vre.address, "issuer": vre.issuer, "pid": os.getpid(), "parts": []}
    # A killed box may have left its last words, which the page at the address would repeat.
    state.write_status(report)

    def publish(parts: list[dict[str, Any]]) -> None:
        report["parts"] = parts
        state.write_status(report)

    def announce(part: Part, name: StateName, detail: str) -> None:
        progress.set(part.name, part.title, name, detail)
        log.info("part %s is %s %s", part.name, name, detail)

    supervisor: Supervisor | None = None
    try:
        with progress:
            await vre.prepare()
            supervisor = Supervisor(vre.parts(), state / "logs", publish, announce)
            loop.add_signal_handler(signal.SIGUSR1, _restart_asked, state, supervisor)
            await _until_or(supervisor.start(), stop)
        if not stop.is_set():
            report["ready_seconds"] = round(time.monotonic() - begin, 2)
            state.write_status(report)
            service.notify("READY=1")
            _welcome(state, vre, progress, report["ready_seconds"])
            await stop.wait()
    finally:
        service.notify("STOPPING=1")
        progress.say("Ending …")
        await _end(state, vre, supervisor)


async def _end(state: State, vre: Vre, supervisor: Supervisor | None) -> None:
    """Parts and sessions at the same time, then once more what a launch in that moment may have left."""
    begin = time.monotonic()
    # The kernel's own clock: it ends us even if we hang, and the parts end with us. `dmsp down` takes away the rest.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(ALL_WITHIN)
    log.info("ending")
    ending: list[asyncio.Task[Any]] = [asyncio.create_task(records.end_sessions(state.path))]
    if supervisor is not None:
        ending.append(asyncio.create_task(supervisor.stop()))
    done, late = await asyncio.wait(ending, timeout=END_WITHIN)
    clean = not late
    for task in late:
        task.cancel()
    for task in done:
        if error := task.exception():
            clean = False
            log.error("while ending: %s", error, exc_info=error)
    try:
        async with asyncio.timeout(CLEAN_WITHIN):
            await vre.clean()
    except (DmspError, OSError, TimeoutError) as error:
        clean = False
        log.error("not all was tidied up: %s", error or type(error).__name__)
    if clean:
        (state / "run" / "status.json").unlink(missing_ok=True)
    log.info("ended after %.1f s", time.monotonic() - begin)


def _restart_asked(state: State, supervisor: Supervisor) -> None:
    """Start those parts again that ``dmsp restart`` named; a file for each, so that none is lost."""
    for file in sorted((state / "run" / "restart").glob("*")):
        file.unlink(missing_ok=True)
        if file.name in supervisor.running:
            supervisor.restart(file.name)


async def _until_or(work: Any, stop: asyncio.Event) -> None:
    """Await ``work``, or leave it when ``stop`` is set; passes on what it raises."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done():
        task.result()
    else:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _welcome(state: State, vre: Vre, progress: display.Progress, seconds: float) -> None:
    progress.say(f"\nThe VRE is ready after {seconds:.0f} s: [bold]{vre.address}[/]\n")
    _say_who(state, vre.own_issuer, vre.issuer, progress)
    progress.say("\nCtrl-C ends it." if os.isatty(0) else "")


def _say_who(state: State, own: bool, issuer: str, progress: display.Progress) -> None:
    """Who can log in: the demo users with their passwords, or people whom another issuer knows."""
    progress.say(display.users_table(demo_users(state)) if own else f"People log in at {issuer}.")


def demo_users(state: State) -> list[dict[str, Any]]:
    """Name, password and groups of the demo users of a box that was up once."""
    file = state / "issuer" / "users.json"
    if not file.exists():
        raise DmspError("This state has no users yet.", "`dmsp up` makes them.")
    found = accounts.load(file)
    passwords = accounts.read_passwords(state / "secrets", found)
    return [{"name": name, "password": passwords[name], "groups": user.groups} for name, user in found.items()]


def _report(state: State) -> dict[str, Any]:
    """What the running box last published; empty when none runs, or it has not said anything yet."""
    owner = state.owner()
    report = state.read_status() if owner is not None else {}
    # A killed box leaves its last words behind.
    return report if owner is not None and report.get("pid") == owner.pid else {}


def status(state: State) -> dict[str, Any]:
    """What ``dmsp status --json`` prints; no parts when no box runs."""
    report = _report(state)
    if not report:
        return {"address": None, "parts": []}
    return {
        "address": report.get("address"),
        "issuer": report.get("issuer"),
        "parts": report.get("parts", []),
    } | {key: report[key] for key in ("ready_seconds",) if key in report}


def stop(state: State) -> bool:
    """End a running box, and what it or a killed one left; False when there was nothing to end.

    A box that is still there after :data:`ALL_WITHIN` seconds, such as one that somebody stopped, is killed: its parts
    end with it.
    """
    owner = state.owner()
    if owner is None:
        return state.exists and asyncio.run(leftovers.end(state))
    owner.terminate()
    try:
        owner.wait(ALL_WITHIN)
    except psutil.TimeoutExpired:
        owner.kill()
        owner.wait(KILL_TIMEOUT)
    if (state / "run" / "status.json").exists():
        asyncio.run(leftovers.end(state))
    return True


def restart(state: State, name: str) -> dict[str, Any]:
    """Start a part of the running box again and wait until it is healthy or has failed; its description.

    Raises:
        DmspError: no box runs, it has no such part, or the part was not healthy within :data:`RESTART_TIMEOUT`.
    """
    before = {part["name"]: part for part in status(state)["parts"]}
    owner = state.owner()
    if owner is None or not before:
        raise DmspError("No box runs on this state.", "`dmsp up` starts one.")
    if name not in before:
        raise DmspError(f"The box has no part {name!r}.", f"Known: {', '.join(before)}.")
    (state / "run" / "restart").mkdir(mode=0o700, exist_ok=True)
    (state / "run" / "restart" / name).touch(mode=0o600)
    owner.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + RESTART_TIMEOUT
    while time.monotonic() < deadline:
        part: dict[str, Any] | None = next((p for p in status(state)["parts"] if p["name"] == name), None)
        if part is None:
            raise DmspError("The box has ended.", "`dmsp up` starts it.")
        if part["restarts"] > before[name]["restarts"] and part["state"] in ("healthy", "failed"):
            return part
        time.sleep(0.1)
    raise DmspError(f"{name} was not healthy again in time.", f"`dmsp status` and `dmsp logs {name}` show why.")


def start_detached(state: State, command: list[str], progress: display.Progress) -> None:
    """Start ``dmsp up`` in the background and follow it until all parts are healthy."""
    state.open()
    if state.owner() is not None:
        raise DmspError(f"A box already runs on {state.path}.", "`dmsp status` shows it, `dmsp down` ends it.")
    output = state / "run" / "detached.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/", start_new_session=True
        )
    deadline = time.monotonic() + DETACH_TIMEOUT
    with progress:
        while time.monotonic() < deadline:
            report = _report(state)
            for part in report.get("parts", []):
                progress.set(part["name"], part["title"], part["state"], part["detail"])
            if "ready_seconds" in report:
                break
            if process.poll() is not None:
                text = tail(output, 20).removeprefix("dmsp: ")
                raise DmspError(text or f"The box ended with code {process.returncode}.")
            time.sleep(0.2)
        else:
            process.terminate()
            raise DmspError("The box was not ready in time.", "`dmsp logs` shows why.")
    progress.say(f"\nThe VRE is ready after {report['ready_seconds']:.0f} s: [bold]{report['address']}[/]\n")
    own = any(part["name"] == "issuer" for part in report["parts"])
    _say_who(state, own, report["issuer"], progress)


def clean_after_crash(state: State) -> None:
    """Take away parts, sessions, mounts and networks that a killed box left."""
    asyncio.run(leftovers.end(state))


def demo_scale(state: State, count: int, progress: display.Progress) -> None:
    """Add the scope with very many DIDs to a running box."""
    report = status(state)
    if not report["parts"]:
        raise DmspError("No box runs on this state.", "`dmsp up` starts one.")
    asyncio.run(Vre.add_scale(state, count, lambda text: progress.set("scale", "many DIDs", "preparing", text)))
    progress.say(f"The scope `scale` holds {count:,} DIDs.")

"""Real sandboxes: processes end, networks are closed, limits hold, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.sandbox import cgroup, process
from jupyterhub_dmsp.sandbox.bwrap import Bind, Identity, Sandbox, write_etc
from jupyterhub_dmsp.sandbox.cgroup import Limits
from jupyterhub_dmsp.sandbox.network import Network
from jupyterhub_dmsp.sandbox.process import Process

pytestmark = pytest.mark.root

PYTHON = "/usr/bin/python3"


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dmsp-sandbox-"))
    yield folder
    shutil.rmtree(folder)


def sandbox(state: Path, name: str = "one", uid: int = 61900, **options: Any) -> Sandbox:
    who = Identity(name, uid, uid, {"dmsp-x": 71900}, home=f"/home/{name}")
    home = state / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    os.chown(home, uid, uid)
    write_etc(state / f"etc-{name}", who)
    return Sandbox(
        who, state / f"etc-{name}", [Bind(str(home), who.home, writable=True)], directory=who.home, **options
    )


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    popen = subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield popen
    finally:
        outer = Process.of(popen.pid)
        init = process.init_of(outer) if outer else None
        for one in (init, outer):
            if one:
                one.send(signal.SIGKILL)
        popen.wait(10)
        for stream in (popen.stdout, popen.stderr):
            if stream:
                stream.close()


def line(popen: subprocess.Popen[str]) -> str:
    assert popen.stdout is not None
    return popen.stdout.readline().strip()


READY = "import signal, sys, time; print('ready', flush=True); {how}; time.sleep(600)"


async def test_graceful_end_lets_the_program_tidy_up(state: Path) -> None:
    how = "signal.signal(signal.SIGTERM, lambda *_: (open('tidy', 'w').close(), sys.exit(0)))"
    with started(sandbox(state).command([PYTHON, "-c", READY.format(how=how)])) as popen:
        # The handler is set after the line is printed: wait for the file that says so instead of guessing.
        assert await asyncio.to_thread(line, popen) == "ready"
        outer = Process.of(popen.pid)
        assert outer is not None
        inner = process.program_of(outer)
        assert inner is not None
        assert "python3" in Path(f"/proc/{inner.pid}/cmdline").read_text()
        assert process.main_of(outer) == inner
        await asyncio.to_thread(_until_handled, inner.pid)
        await process.end(outer, grace=5)
        assert not outer.alive()
        assert not inner.alive()
    assert (state / "homes" / "one" / "tidy").exists()


def _until_handled(pid: int) -> None:
    """Wait until the process catches SIGTERM (proc(5): SigCgt)."""
    while True:
        text = Path(f"/proc/{pid}/status").read_text()
        caught = int(text.split("SigCgt:")[1].split()[0], 16)
        if caught & (1 << (signal.SIGTERM - 1)):
            return


async def test_deaf_program_and_its_daemons_are_killed(state: Path) -> None:
    code = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    with started(sandbox(state).command([PYTHON, "-c", code])) as popen:
        assert await asyncio.to_thread(line, popen) == "ready"
        outer = Process.of(popen.pid)
        assert outer is not None
        await process.end(outer, grace=0.2)
        assert not outer.alive()
    assert not [p for p in Path("/proc").glob("[0-9]*") if p.exists() and p.stat().st_uid == 61900]


async def test_end_when_bubblewrap_outside_was_killed_alone(state: Path) -> None:
    with started(sandbox(state).command([PYTHON, "-c", READY.format(how="pass")])) as popen:
        assert await asyncio.to_thread(line, popen) == "ready"
        outer = Process.of(popen.pid)
        init = process.init_of(outer) if outer else None
        assert outer
        assert init
        outer.send(signal.SIGKILL)
        await outer.gone(5)
        assert init.alive()
        await process.end(outer, init)
        assert not init.alive()


async def test_a_number_used_again_is_another_process() -> None:
    child = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    one = Process.of(child.pid)
    assert one is not None
    assert process.main_of(one) == one, "nothing is around it"
    other = Process(one.pid, one.started + 1)
    assert one.alive()
    assert not other.alive()
    assert not other.send(signal.SIGKILL)
    assert await other.gone(0)
    assert not await one.gone(0.01)
    child.kill()
    assert await one.gone(5), "a zombie is gone"
    child.communicate()


async def test_what_a_program_sees(state: Path) -> None:
    code = "import os; print(os.getuid(), os.getgroups(), os.listdir('/home'), os.path.exists('/root'))"
    ran = await asyncio.to_thread(
        subprocess.run, sandbox(state).command([PYTHON, "-c", code]), cwd="/", capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("61900 [61900, 71900]")
    assert "'one'" in ran.stdout
    assert ran.stdout.strip().endswith("False")


@pytest.fixture
async def network(state: Path) -> AsyncIterator[Network]:
    one = await Network.load_or_choose(state, ports=(28777,), internet=False)
    await one.ensure()
    yield one
    await one.remove()


def reach(state: Path, namespace: Path, targets: list[tuple[str, int]], name: str) -> list[bool]:
    code = f"""
import socket
for where in {targets!r}:
    try:
        socket.create_connection(where, 2).close(); print(True)
    except OSError: print(False)
"""
    command = sandbox(state, name, network=namespace).command([PYTHON, "-c", code])
    ran = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    return [text == "True" for text in ran.stdout.split()]


async def test_only_the_open_ports_of_the_gateway(state: Path, network: Network) -> None:
    import socket

    one, other = await network.attach("one"), await network.attach("other")
    listen = (
        "import socket, time; s = socket.create_server(('', 8888)); print('ready', flush=True); time.sleep(600)"
    )
    with (
        socket.create_server((network.gateway, 28777)),
        socket.create_server(("0.0.0.0", 28778)),
        started(
            sandbox(state, "other", 61901, network=other.namespace).command([PYTHON, "-c", listen])
        ) as popen,
    ):
        assert await asyncio.to_thread(line, popen) == "ready"
        with socket.create_connection((other.address, 8888), 2):
            pass  # from the machine itself, as the proxy does it
        own = await asyncio.to_thread(subprocess.getoutput, "hostname -I")
        targets = [
            (network.gateway, 28777),
            (network.gateway, 28778),
            (other.address, 8888),
            ("127.0.0.1", 28778),
        ]
        targets += [
            (address, 28778) for address in own.split() if "." in address and not address.startswith("100.")
        ]
        found = await asyncio.to_thread(reach, state, one.namespace, targets, "one")
    assert found == [True] + [False] * (len(targets) - 1)


async def test_ensure_and_attach_twice_change_nothing(network: Network) -> None:
    first = await network.attach("one")
    await network.ensure()
    assert await network.attach("one") == first
    assert (await network.attach("two")).address != first.address
    await network.detach("one")
    await network.detach("one")
    assert not first.namespace.exists()


async def test_the_gateway_keeps_its_hardware_address(network: Network) -> None:
    """Sessions remember it: what they send to a former one is lost, the end of a connection too."""
    address = Path("/sys/class/net", network.name, "address")
    seen = {address.read_text()}
    for key in "abcd":
        await network.attach(key)
        seen.add(address.read_text())
    for key in "abcd":
        await network.detach(key)
        seen.add(address.read_text())
    assert len(seen) == 1


async def test_stale_namespaces_are_removed_even_without_a_record(network: Network) -> None:
    one, two = await network.attach("one"), await network.attach("two")
    assert await network.remove_stale(keep=["two"]) == [one.namespace.name]
    assert two.namespace.exists()
    network.record.unlink()
    assert await network.remove_stale(keep=[]) == [two.namespace.name]


async def test_two_installations_have_two_networks(state: Path, network: Network) -> None:
    elsewhere = state / "elsewhere"
    other = await Network.load_or_choose(elsewhere)
    await other.ensure()
    try:
        assert other.name != network.name
        assert not other.subnet.overlaps(network.subnet)
        assert (await Network.load_or_choose(elsewhere)).subnet == other.subnet
    finally:
        await other.remove()
    assert Network.load(elsewhere) is not None
    links = await asyncio.to_thread(subprocess.getoutput, "ip -br link")
    assert other.name not in links
    assert network.name in links


MANY = """
import subprocess as s
for _ in range(40):
    s.Popen(["sleep", "600"], stdin=s.DEVNULL, stdout=s.DEVNULL, stderr=s.DEVNULL)
"""


async def test_limits_hold() -> None:
    group = cgroup.create("dmsp-test-limits", Limits(memory=200 * 2**20, processes=20))
    if "memory" not in group.applied:
        await group.remove()
        assert group.refused["memory"], "a limit that does not hold is said"
        return
    try:
        eat = [PYTHON, "-c", "x = bytearray(600 * 2**20); print(len(x))"]
        ran = await asyncio.to_thread(subprocess.run, group.command(eat), capture_output=True, text=True)
        assert ran.returncode != 0
        assert not ran.stdout
        many = [PYTHON, "-c", MANY]
        ran = await asyncio.to_thread(subprocess.run, group.command(many), capture_output=True, text=True)
        assert "BlockingIOError" in ran.stderr
        assert len(group.processes()) <= 20
    finally:
        assert await group.remove()
    assert not cgroup.existing("dmsp-test-limits").directories

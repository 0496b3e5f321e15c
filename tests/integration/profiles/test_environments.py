"""Environments as uv really builds them: shared, repaired, never half there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_dmsp.profiles import builder
from jupyterhub_dmsp.profiles.builder import MARKER, find_python, reachable_by_all
from jupyterhub_dmsp.profiles.environments import BuildFailed, Environments, EnvironmentSpec, Progress
from jupyterhub_dmsp.profiles.kernels import Kernel

# Another process that wants the same environment and says each stage.
OTHER = """
import asyncio, sys
from pathlib import Path
from jupyterhub_dmsp.profiles.environments import Environments, EnvironmentSpec
from jupyterhub_dmsp.profiles.kernels import Kernel
kernel = Kernel(name="python3", display_name="Python 3", language="python")
spec = EnvironmentSpec("small", Path(sys.argv[2]), "3.11", (kernel,))
path = asyncio.run(Environments(Path(sys.argv[1])).ensure(spec, lambda p: print(p.stage, flush=True)))
print("done", (path / ".dmsp-environment.json").stat().st_ino, flush=True)
"""


def other(root: Path, spec: EnvironmentSpec) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", OTHER, str(root), str(spec.lock)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def ran(path: Path, code: str) -> str:
    argv = [str(path / "bin" / "python"), "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


async def test_a_built_environment(root: Path, spec: EnvironmentSpec) -> None:
    environments = Environments(root)
    assert not environments.is_ready(spec)
    heard: list[Progress] = []
    path = await environments.ensure(spec, heard.append)
    assert path == environments.path(spec) == root / f"small-{spec.digest()}"
    assert environments.is_ready(spec)
    assert heard[-1] == Progress("ready", "The environment is ready", 1.0)
    assert next(p.message for p in heard if p.stage == "download") == "Collecting 2 packages"
    fractions = [p.fraction for p in heard if p.fraction is not None]
    assert fractions == sorted(fractions)

    manifest = environments.manifest(spec)
    assert manifest is not None
    assert sorted(manifest.packages) == ["idna", "packaging"]
    assert manifest.python.startswith("3.11.")

    site = path / "lib" / "python3.11" / "site-packages"
    sources = [source for source in site.rglob("*.py") if "__pycache__" not in source.parts]
    assert len(sources) > 20
    uncompiled = [s for s in sources if not (s.parent / "__pycache__" / f"{s.stem}.cpython-311.pyc").exists()]
    assert uncompiled == []
    assert (site / "idna" / "core.py").stat().st_nlink > 1, "hard links into uv's cache"
    kernels = path / "share" / "jupyter" / "kernels"
    assert json.loads((kernels / "python3" / "kernel.json").read_text())["argv"][0] == f"{path}/bin/python"


async def test_the_kernel_folder_is_on_the_path(root: Path, spec: EnvironmentSpec) -> None:
    path = await Environments(root).ensure(spec)
    assert str(builder.KERNEL_FOLDER) in ran(path, "import sys; print(*sys.path, sep='\\n')").splitlines()
    plain = EnvironmentSpec("plain", spec.lock)
    path = await Environments(root).ensure(plain)
    assert str(builder.KERNEL_FOLDER) not in ran(path, "import sys; print(*sys.path, sep='\\n')")


@pytest.mark.root
async def test_every_user_can_read_and_start_it(root: Path, spec: EnvironmentSpec) -> None:
    old = os.umask(0o077)
    try:
        path = await Environments(root, cache=root.parent / "cache").ensure(spec)
    finally:
        os.umask(old)
    for entry in [path, *path.rglob("*")]:
        if not entry.is_symlink():
            mode = stat.S_IMODE(entry.lstat().st_mode)
            assert mode & 0o044 == 0o044, (entry, oct(mode))
            assert not entry.is_dir() or mode & 0o011 == 0o011, (entry, oct(mode))
    process = await asyncio.create_subprocess_exec(
        str(path / "bin" / "python"),
        "-c",
        "import idna; print(idna.__file__)",
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert str(path).encode() in output


async def test_callers_share_one_build(root: Path, spec: EnvironmentSpec) -> None:
    environments = Environments(root)
    heard: list[list[str]] = [[] for _ in range(5)]
    calls = [environments.ensure(spec, lambda p, h=h: h.append(p.stage)) for h in heard]  # type: ignore[misc]
    paths = await asyncio.gather(*calls)
    assert len(set(paths)) == 1
    assert all(stages.count("python") == 1 and stages[-1] == "ready" for stages in heard)
    log = (root / ".logs" / f"{paths[0].name}.log").read_text()
    assert log.count("$ uv venv") == 1


async def test_a_listener_that_fails_harms_nobody(root: Path, spec: EnvironmentSpec) -> None:
    def bad(_: Progress) -> None:
        raise RuntimeError("the page is closed")

    assert (await Environments(root).ensure(spec, bad)).is_dir()


async def test_processes_share_one_build(root: Path, spec: EnvironmentSpec) -> None:
    processes = [other(root, spec) for _ in range(3)]
    outputs = await asyncio.gather(*(asyncio.to_thread(p.communicate, timeout=120) for p in processes))
    lines = [output.split("\n") for output, _ in outputs]
    assert sum("install" in stages for stages in lines) == 1
    assert len({stages[-2] for stages in lines}) == 1, "the same marker for all"


async def test_a_killed_build_is_built_again(root: Path, spec: EnvironmentSpec) -> None:
    process = other(root, spec)
    assert process.stdout is not None
    while (await asyncio.to_thread(process.stdout.readline)).strip() != "download":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    environments = Environments(root)
    assert environments.path(spec).exists(), "half built"
    assert not environments.is_ready(spec)
    path = await environments.ensure(spec)
    assert ran(path, "import idna, packaging; print('all there')") == "all there"


@pytest.mark.parametrize(
    "breakage",
    [
        pytest.param("rm {env}/.dmsp-environment.json", id="no marker"),
        pytest.param("echo '{{' > {env}/.dmsp-environment.json", id="torn marker"),
        pytest.param("sed -i s/{digest}/000000000000/ {env}/.dmsp-environment.json", id="foreign marker"),
        pytest.param("rm {env}/bin/python", id="no interpreter"),
        pytest.param("ln -sf /bin/false {env}/bin/python", id="interpreter does not start"),
        pytest.param("ln -sf /bin/true {env}/bin/python", id="interpreter does not answer"),
        pytest.param(
            'printf \'#!/bin/sh\\necho %s\' "\'{{\\"python\\": \\"3.12.1\\", \\"packages\\": {{}}}}\'" > {env}/bin/p;'
            " chmod +x {env}/bin/p; ln -sf p {env}/bin/python",
            id="another version",
        ),
    ],
)
async def test_a_broken_environment_is_built_again(root: Path, spec: EnvironmentSpec, breakage: str) -> None:
    path = await Environments(root).ensure(spec)
    command = breakage.format(env=path, digest=spec.digest())
    await asyncio.to_thread(subprocess.run, ["/bin/sh", "-c", command], check=True)
    heard: list[str] = []
    again = await Environments(root).ensure(spec, lambda p: heard.append(p.stage))
    assert again == path
    assert heard[-1] == "ready"
    assert ran(path, "import idna; print('there')") == "there"


async def test_an_interpreter_that_changes_is_noticed_by_a_running_hub(
    root: Path, spec: EnvironmentSpec
) -> None:
    environments = Environments(root)
    path = await environments.ensure(spec)
    (path / "bin" / "python").unlink()
    (path / "bin" / "python").symlink_to("/bin/false")
    heard: list[str] = []
    await environments.ensure(spec, lambda p: heard.append(p.stage))
    assert heard[-1] == "ready"


async def test_a_cancelled_build_leaves_nothing(root: Path, spec: EnvironmentSpec) -> None:
    environments = Environments(root)
    started = asyncio.Event()
    call = asyncio.create_task(environments.ensure(spec, lambda _: started.set()))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not environments.path(spec).exists()
    assert (await environments.ensure(spec)).is_dir()


async def test_one_of_two_callers_may_leave(root: Path, spec: EnvironmentSpec) -> None:
    environments = Environments(root)
    started = asyncio.Event()
    first = asyncio.create_task(environments.ensure(spec, lambda _: started.set()))
    second = asyncio.create_task(environments.ensure(spec))
    await started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).is_dir()


async def test_a_wrong_hash_is_refused_in_one_sentence(root: Path, spec: EnvironmentSpec) -> None:
    spec.lock.write_text(f"idna==3.10 --hash=sha256:{'0' * 64}\n")
    environments = Environments(root, cache=root.parent / "cache")
    with pytest.raises(BuildFailed) as error:
        await environments.ensure(spec)
    assert error.value.message == (
        "The environment small cannot be built: "
        "the package idna==3.10 does not have the hash that the lock expects."
    )
    assert "ash mismatch" in error.value.log.read_text()
    assert str(error.value.log) in error.value.remedy
    assert not environments.path(spec).exists()


async def test_a_python_that_nobody_has(
    root: Path, spec: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    old = EnvironmentSpec("old", spec.lock, "3.5")
    with pytest.raises(BuildFailed, match="The environment old cannot be built"):
        await Environments(root).ensure(old)
    assert not Environments(root).path(old).exists()


async def test_stale_environments_go_used_ones_stay(root: Path, spec: EnvironmentSpec) -> None:
    environments = Environments(root)
    kept, used, stale = (EnvironmentSpec(slug, spec.lock) for slug in ("kept", "used", "stale"))
    for wanted in (kept, used, stale):
        await environments.ensure(wanted)
    (root / "notes").mkdir()
    python = environments.path(used) / "bin" / "python"
    process = await asyncio.create_subprocess_exec(str(python), "-c", "input()", stdin=subprocess.PIPE)
    try:
        assert await environments.remove_stale([kept]) == [stale.folder]
    finally:
        process.terminate()
        await process.wait()
    assert await environments.remove_stale([kept]) == [used.folder]
    assert environments.is_ready(kept)
    assert (root / "notes").is_dir()
    assert not (environments.path(stale) / MARKER).exists()


async def test_cache_beside_the_environments_where_links_are_impossible(
    root: Path, spec: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", "/dev/shm/dmsp-no-such-cache")
    await Environments(root).ensure(spec)
    assert (root / ".uv-cache").is_dir()
    assert not Path("/dev/shm/dmsp-no-such-cache").exists()


def test_the_interpreter_is_one_that_all_can_start(tmp_path: Path) -> None:
    python = find_python("3.11")
    assert python is None or os.geteuid() != 0 or reachable_by_all(python)
    hidden = tmp_path / "closed" / "python"
    hidden.parent.mkdir(mode=0o700)
    hidden.write_text("#!/bin/sh\n")
    hidden.chmod(0o755)
    assert not reachable_by_all(hidden)
    assert not reachable_by_all(tmp_path / "nothing")


def test_kernels_of_two_specs_make_two_environments(spec: EnvironmentSpec) -> None:
    more = Kernel(name="cpp", display_name="C++", language="c++", command="python -m k -f {connection_file}")
    assert EnvironmentSpec("small", spec.lock, "3.11", (*spec.kernels, more)).folder != spec.folder
    assert EnvironmentSpec("small", spec.lock, "3.12", spec.kernels).folder != spec.folder

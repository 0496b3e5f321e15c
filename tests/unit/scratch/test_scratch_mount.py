"""Looking at the mount: what is there, what is not, and a mount that is gone."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from jupyterhub_dmsp.scratch import mount as mount_module
from jupyterhub_dmsp.scratch.mount import Mount, MountGone, Wanted


async def test_health(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    health = await mount.health()
    assert health.state == "ok"
    assert health.total_bytes is not None
    assert 0 < health.free_bytes <= health.total_bytes  # type: ignore[operator]
    assert (await Mount(tmp_path / "not").health()).state == "missing"
    (tmp_path / "file").write_text("")
    assert (await Mount(tmp_path / "file").health()).state == "missing"
    mount.close()


async def test_look(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"1234")
    (tmp_path / "short").write_bytes(b"12")
    (tmp_path / "dir").mkdir()
    wanted = [Wanted(str(tmp_path / n), 4) for n in ("good", "short", "absent", "dir", "good/x")]
    look = await Mount(tmp_path).look(wanted, batch=2)
    assert (look.present, look.wrong, look.absent, look.refused) == ([0], [1], [2, 3, 4], [])


async def test_a_missing_mount_is_not_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MountGone) as caught:
        await Mount(tmp_path / "gone").look([Wanted(str(tmp_path / "gone" / "f"), 1)])
    assert caught.value.health.state == "missing"


async def test_a_dead_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def dead(path: object, **more: object) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return real(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", dead)
    mount = Mount(tmp_path)
    assert (await mount.health()).state == "dead"
    with pytest.raises(MountGone):
        await mount.look([Wanted(str(tmp_path / "f"), 1)])


async def test_a_hanging_mount_does_not_hang_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(mount_module, "_health", lambda _: release.wait(20))
    mount = Mount(tmp_path, timeout=0.05)
    assert (await mount.health()).state == "dead"
    release.set()
    mount.close()

"""Room on this machine, and what is looked at before a start."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_dmsp.hub.local import checks, room
from jupyterhub_dmsp.hub.local.checks import NotHere
from jupyterhub_dmsp.hub.local.records import Record
from jupyterhub_dmsp.hub.local.room import NoRoom, Room, Share
from jupyterhub_dmsp.profiles.launch import Launch, resolve
from jupyterhub_dmsp.profiles.schema import Profile
from jupyterhub_dmsp.sandbox.process import Process
from jupyterhub_dmsp.settings import Sessions, Settings

GIB = 1024**3
KERNELS = [{"name": "python3", "display_name": "Python 3", "language": "python"}]


def launch(memory: str = "4G", gpus: int = 0, **more: Any) -> Launch:
    choices = {"memory": ["2G", "4G", "16G"], "gpu": [0, 1, 2]}
    data = {"name": "Deep sea", "kernels": KERNELS, "folder": Path("/c/deep-sea"), "choices": choices, **more}
    return resolve(Profile.model_validate(data), {"memory": memory, "gpu": gpus}, ())


def running(state: Path, key: str, memory: int = 0, gpus: tuple[int, ...] = ()) -> None:
    """Write down a session that runs: this very process."""
    me = Process.of(os.getpid())
    assert me is not None
    (state / "sessions" / key).mkdir(parents=True)
    Record(key, key, "deep-sea", me, me, "127.0.0.1", 1, memory, gpus).write(state)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """8 GB of memory, of which 7 are available, and two graphics processors."""
    monkeypatch.setattr(room, "machine_memory", lambda: 8 * GIB)
    monkeypatch.setattr(room, "available_memory", lambda: 7 * GIB)
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps-imex", "null"):
        (devices / name).touch()
    monkeypatch.setattr(room, "DEVICES", devices)
    return devices


def test_running_and_starting_sessions_count_once(tmp_path: Path) -> None:
    one = Room(tmp_path, overcommit=1.5)
    running(tmp_path, "anna", 4 * GIB, (0,))
    with one.promise("ben", launch("4G", 1)) as share:
        assert share == Share(4 * GIB, (1,))
        assert (one.capacity().memory_bytes, one.capacity().gpus) == (4 * GIB, 0)
        running(tmp_path, "ben", 4 * GIB, (1,))  # its record is written before the promise ends
        assert (one.capacity().memory_bytes, one.capacity().gpus) == (4 * GIB, 0)
    assert one.capacity("ben").memory_bytes == 7 * GIB
    assert one.capacity("ben").gpus == 1


def test_no_room_says_how_much_there_is_and_what_to_choose(tmp_path: Path) -> None:
    one = Room(tmp_path, overcommit=1.0)
    running(tmp_path, "anna", 5 * GIB)
    with pytest.raises(NoRoom) as caught, one.promise("ben", launch("4G")):
        pass
    assert caught.value.message == (
        "There is no room for a session with 4 GB of memory: 3 GB is left."
        " Choose 2 GB or less, or try again when others have finished."
    )
    running(tmp_path, "carla", 2 * GIB)
    with (
        pytest.raises(NoRoom, match=r"1 GB is left\. Try again when others have finished"),
        one.promise("ben", launch("2G")),
    ):
        pass
    assert one.capacity().memory_bytes == GIB


def test_no_session_gets_more_than_the_machine_has(tmp_path: Path) -> None:
    one = Room(tmp_path, overcommit=10.0)
    with pytest.raises(NoRoom, match="16 GB of memory: 8 GB is left"), one.promise("ben", launch("16G")):
        pass


def test_machine_that_is_full_in_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_memory", lambda: 100 * room.MIB)
    one = Room(tmp_path, overcommit=2.0)
    with pytest.raises(NoRoom, match="use nearly all memory: 100 MB is left"), one.promise("ben", launch("2G")):
        pass
    assert one.capacity().memory_bytes == 100 * room.MIB


def test_unchecked_memory(tmp_path: Path) -> None:
    one = Room(tmp_path)
    assert one.capacity().memory_bytes is None
    with one.promise("ben", launch("16G")):
        pass


def test_a_start_that_fails_gives_its_share_back(tmp_path: Path) -> None:
    one = Room(tmp_path, overcommit=1.0)
    with pytest.raises(ValueError), one.promise("ben", launch("4G", 2)):
        raise ValueError
    assert one.capacity().gpus == 2
    with one.promise("ben", launch("4G", 2)):
        pass


def test_graphics_processors_are_never_shared(tmp_path: Path, machine: Path) -> None:
    one = Room(tmp_path)
    with one.promise("anna", launch(gpus=1)) as first, one.promise("ben", launch(gpus=1)) as second:
        assert (first.gpus, second.gpus) == ((0,), (1,))
        with pytest.raises(NoRoom, match="with 1 graphics processor: no graphics processor is free"):
            one.promise("carla", launch(gpus=1)).__enter__()
    assert room.gpu_devices((1,)) == [machine / name for name in ("nvidia1", "nvidiactl", "nvidia-uvm")]
    assert room.gpu_devices(()) == []


def test_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    running(tmp_path, "anna", GIB, (1,))
    file = tmp_path / "sessions" / "anna" / "record.json"
    record = Record.read(tmp_path, "anna")
    assert record is not None
    assert (record.memory, record.gpus) == (GIB, (1,))
    file.write_text(
        file.read_text().replace(f'"memory": {GIB},', "").replace('"gpus": [\n  1\n ]', '"gpus": []')
    )
    record = Record.read(tmp_path, "anna")
    assert record is not None
    assert (record.memory, record.gpus) == (0, ())


@pytest.mark.parametrize(
    ("left", "own", "outcome"),
    [
        (10**9, False, ""),
        (10**6, False, "The disk with the home folders is full: 0 MB are left, and a session needs 256 MB."),
        (10**6, True, "said"),
    ],
)
async def test_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, own: bool, outcome: str
) -> None:
    monkeypatch.setattr(room, "disk", lambda homes, home: (left, own))
    said: list[str] = []
    if outcome not in ("", "said"):
        with pytest.raises(NotHere) as caught:
            await checks.home(tmp_path, "anna", Settings(), said.append)
        assert caught.value.message == outcome
    else:
        await checks.home(tmp_path, "anna", Settings(), said.append)
    assert bool(said) == (outcome == "said")
    await checks.home(tmp_path, "anna", Settings(sessions=Sessions(home_free=0)), said.append)


def test_disk_of_a_home_that_is_not_there_yet(tmp_path: Path) -> None:
    left, own = room.disk(tmp_path / "state" / "homes", tmp_path / "state" / "homes" / "anna")
    assert left > 0
    assert not own


async def test_scratch_that_comes_back_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PAUSE", 0)
    point, said = tmp_path / "lake", []

    def say(text: str) -> None:
        said.append(text)
        point.mkdir(exist_ok=True)  # the cure

    assert await checks.scratch(point, 60, say)
    assert said == ["Waiting for scratch, which does not answer", "Scratch is back"]
    said.clear()
    assert await checks.scratch(point, 60, said.append)
    assert said == []


async def test_scratch_that_does_not_come_back_stops_nobody(tmp_path: Path) -> None:
    said: list[str] = []
    assert not await checks.scratch(tmp_path / "gone", 0, said.append)
    assert [text.split(":")[0] for text in said] == ["Scratch does not answer"]


async def test_scratch_that_hangs_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(self: Any) -> Any:
        await asyncio.sleep(0)
        return checks.Mount and type("Health", (), {"state": "dead"})()

    monkeypatch.setattr(checks.Mount, "health", hangs)
    (tmp_path / "lake").mkdir()
    assert not await checks.scratch(tmp_path / "lake", 0, lambda text: None)


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        ({"path": "/data", "host": "/usr"}, ""),
        ({"path": "/data", "host": "/nowhere", "optional": True}, ""),
        ({"path": "/data", "claim": "pvc", "optional": True}, ""),
        ({"path": "/data", "host": "/nowhere"}, "Deep sea needs /data, which this machine does not have."),
        ({"path": "/data", "claim": "pvc"}, "Deep sea needs the volume pvc, which only a cluster has."),
        ({"path": "/scratch", "host": "/usr"}, "Deep sea mounts /scratch, where scratch is."),
        (
            {"path": "/scratch/lake/more", "host": "/usr"},
            "Deep sea mounts /scratch/lake/more, where scratch is.",
        ),
    ],
)
def test_mounts(mount: dict[str, Any], sentence: str) -> None:
    asked = launch(mounts=[{"name": "m", **mount}])
    if not sentence:
        checks.mounts(asked, Settings())
        return
    with pytest.raises(NotHere) as caught:
        checks.mounts(asked, Settings())
    assert caught.value.message == sentence

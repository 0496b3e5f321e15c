"""Copying: verified, atomic, nothing left behind."""

from __future__ import annotations

import os
import stat
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio import copying
from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio.copying import CopyError, Job
from jupyterhub_dmsp.box.rucio.inside.dmsp_rucio.pool import Pool


def job(root: Path, name: str, data: bytes, *, size: int | None = None, adler32: str | None = "") -> Job:
    source = root / "source" / name
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(data)
    return Job(
        request_id=name,
        external_id="e",
        source=str(source),
        destination=str(root / "scratch" / "ab" / name),
        source_rse="SITE",
        destination_rse="SCRATCH",
        size=len(data) if size is None else size,
        adler32=f"{zlib.adler32(data):08x}" if adler32 == "" else adler32,
    )


def test_copies_and_lands_with_mode(tmp_path: Path) -> None:
    one = job(tmp_path, "a", os.urandom(3 << 20))
    assert copying.fill(one, "boot", sync=True)
    assert not Path(one.destination).exists()
    copying.land(one)
    assert Path(one.destination).read_bytes() == Path(one.source).read_bytes()
    assert stat.S_IMODE(Path(one.destination).stat().st_mode) & 0o137 == 0
    assert one.done == one.size
    assert not copying.fill(one, "boot", sync=False), "a complete file is not copied again"


def test_empty_file(tmp_path: Path) -> None:
    one = job(tmp_path, "empty", b"")
    assert copying.fill(one, "boot", sync=False)
    copying.land(one)
    assert Path(one.destination).read_bytes() == b""


@pytest.mark.parametrize(
    ("change", "says", "passing"),
    [
        ({"adler32": "00000001"}, "is damaged", False),
        ({"size": 3}, "the catalogue says 3", False),
        ({"missing": True}, "The file is missing at SITE.", False),
    ],
)
def test_failures_are_sentences_and_leave_nothing(
    tmp_path: Path, change: dict[str, object], says: str, passing: bool
) -> None:
    missing = change.pop("missing", False)
    one = job(tmp_path, "bad", b"12345", **change)  # type: ignore[arg-type]
    if missing:
        Path(one.source).unlink()
    with pytest.raises(CopyError) as caught:
        copying.fill(one, "boot", sync=False)
    assert says in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.passing is passing
    assert list((tmp_path / "scratch").rglob("*")) in ([], [tmp_path / "scratch" / "ab"])


def test_full_disk_may_pass(tmp_path: Path) -> None:
    one = job(tmp_path, "full", b"x")
    one.destination = "/dev/full/x"
    with pytest.raises(CopyError) as caught:
        copying.fill(one, "boot", sync=False)
    assert caught.value.passing
    assert "SCRATCH" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("posix://localhost/s/A/lake/x/ab/cd/n", "/s/A/lake/x/ab/cd/n"),
        ("posix://localhost/s/A/lake/x/ab/cd/a%41", "/s/A/lake/x/ab/cd/a%41"),
        ("posix://localhost/s/A/lake/x/ab/cd/../../../../../../etc/passwd", None),
        ("posix://localhost/other/x", None),
        ("posix://localhost/s", None),
    ],
)
def test_paths_stay_in_the_storage(url: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(CopyError):
            copying.safe_path(url, "/s")
    else:
        assert copying.safe_path(url, "/s") == path


def test_sweep_spares_its_own(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in (".box-old-1.part", ".box-new-1.part", "data.part", ".box-notes"):
        (tmp_path / "x" / name).touch()
    assert copying.sweep(str(tmp_path), "new") == 1
    assert {p.name for p in (tmp_path / "x").iterdir()} == {".box-new-1.part", "data.part", ".box-notes"}


def test_directories_that_were_made_for_nothing_go_and_the_scopes_stays(tmp_path: Path) -> None:
    scope = tmp_path / "scratch" / "ab"
    for name, levels in (("x/y/bad", 2), ("x/y/deep/er/bad", 4)):
        one = job(tmp_path, "bad", b"12345", adler32="00000001")
        one.destination, one.levels = str(scope / name), levels
        with pytest.raises(CopyError, match="is damaged"):
            copying.fill(one, "boot", sync=False)
        assert list(scope.iterdir()) == []
    good = job(tmp_path, "good", b"1")
    good.destination, good.levels = str(scope / "x" / "y" / "good"), 2
    copying.fill(good, "boot", sync=False)
    copying.land(good)
    bad = job(tmp_path, "bad", b"12345", size=6)
    bad.destination, bad.levels = str(scope / "x" / "z" / "bad"), 2
    with pytest.raises(CopyError):
        copying.fill(bad, "boot", sync=False)
    assert sorted(path.name for path in scope.rglob("*")) == ["good", "x", "y"]


def test_a_directory_may_vanish_under_whoever_writes_there(tmp_path: Path) -> None:
    """Copies into one directory, each of which fails and tidies up while the others begin."""
    scope = tmp_path / "scratch" / "ab"
    scope.mkdir(parents=True)
    errors: list[str] = []

    def work(number: int) -> None:
        for turn in range(300):
            one = job(tmp_path, f"{number}", b"12345", adler32="00000001" if turn % 3 else "")
            one.destination, one.levels = str(scope / "x" / "y" / f"{number}.{turn}"), 2
            try:
                copying.fill(one, f"boot{number}", sync=False)
                copying.discard(one)
            except CopyError as error:
                if "is damaged" not in str(error):
                    errors.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(scope.iterdir()) == []


def test_sweep_takes_the_directories_along(tmp_path: Path) -> None:
    left = tmp_path / "ab" / "x" / "y" / ".box-old-1.part"
    left.parent.mkdir(parents=True)
    left.touch()
    assert copying.sweep(str(tmp_path), "new") == 1
    assert list(tmp_path.rglob("*")) == [tmp_path / "ab"]


class Ledger:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.published: list[int] = []
        self.noticed = threading.Event()

    def wanted(self, jobs: Sequence[Job]) -> set[str]:
        return {one.request_id for one in jobs} - self.gone

    def holding(self, jobs: Sequence[Job], action: Callable[[Sequence[Job]], None]) -> None:
        action([one for one in jobs if one.request_id not in self.gone])

    def publish(self, jobs: Sequence[Job]) -> None:
        self.published += [one.done for one in jobs]
        self.noticed.set()


def test_pool_finishes_everything_once(tmp_path: Path) -> None:
    ledger = Ledger()
    pool = Pool(3, ledger)
    pool.start()
    jobs = [job(tmp_path, f"f{n}", bytes([n % 256]) * n) for n in range(120)]
    bad = job(tmp_path, "bad", b"x", adler32="00000000")
    cancelled = job(tmp_path, "cancelled", b"x")
    ledger.gone.add("cancelled")
    pool.add([*jobs, bad, cancelled])
    done = [pool.finished.get(timeout=20) for _ in range(122)]
    assert len({one.request_id for one in done}) == 122
    assert {one.request_id for one in done if one.error} == {"bad", "cancelled"}
    assert all(Path(one.destination).read_bytes() == Path(one.source).read_bytes() for one in jobs)
    assert not Path(cancelled.destination).exists()
    assert not list(tmp_path.rglob("*.part"))
    pool.stop(2)
    assert pool.backlog == 0


def test_pool_withdraws_a_running_copy(tmp_path: Path) -> None:
    ledger = Ledger()
    pool = Pool(2, ledger, pause=0.05)
    pool.start()
    big = job(tmp_path, "big", bytes(100 << 20), adler32=None)
    pool.add([big])
    assert ledger.noticed.wait(10), "progress was not published"
    ledger.gone.add("big")
    done = pool.finished.get(timeout=10)
    assert done.error == "The transfer was cancelled."
    assert 0 < ledger.published[0] < big.size
    assert not list(tmp_path.rglob("*.part"))
    pool.stop(2)


def test_pool_keeps_a_thread_for_small_files(tmp_path: Path) -> None:
    pool = Pool(2, Ledger(), pause=0.05)
    pool.start()
    pool.add([job(tmp_path, f"big{n}", bytes(60 << 20), adler32=None) for n in range(2)])
    pool.add([job(tmp_path, "small", b"s")])
    assert pool.finished.get(timeout=10).request_id == "small"
    pool.stop(5)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("bad", [b"evil content", b"good", b"good content and more", None])
def test_a_bad_source_is_left_for_a_good_one(tmp_path: Path, bad: bytes | None) -> None:
    one = job(tmp_path, "a", b"good content")
    good = tmp_path / "good"
    good.write_bytes(b"good content")
    one.others = [(str(tmp_path / "nowhere"), "WEST"), (str(good), "SOUTH")]
    if bad is None:
        Path(one.source).unlink()
    else:
        Path(one.source).write_bytes(bad)
    assert copying.fill_from_any(one, "boot", sync=False)
    copying.land(one)
    assert Path(one.destination).read_bytes() == b"good content"
    assert (one.source_rse, one.done) == ("SOUTH", 12)
    assert list(Path(one.destination).parent.iterdir()) == [Path(one.destination)]


def test_of_bad_sources_the_first_is_named(tmp_path: Path) -> None:
    one = job(tmp_path, "a", b"content", adler32="00000001")
    one.others = [(str(tmp_path / "nowhere"), "SOUTH")]
    with pytest.raises(CopyError, match="The file at SITE is damaged"):
        copying.fill_from_any(one, "boot", sync=False)
    assert not list(Path(one.destination).parent.iterdir())

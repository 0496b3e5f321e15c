"""Paths below the mount, and never outside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.scratch.paths import OutsideMount, Paths, hash_path

MOUNT = Path("/scratch/lake")


@pytest.mark.parametrize(
    ("scope", "name", "path"),
    [
        ("dmsp", "one_00000.dat", "dmsp/9d/19/one_00000.dat"),
        ("a.b", "x", "a.b/"),
        ("user.km3net-user", "x", "user/km3net-user/"),
        ("group.km3net", "x", "group/km3net/"),
    ],
)
def test_the_path_that_rucio_uses(scope: str, name: str, path: str) -> None:
    assert hash_path(scope, name).startswith(path)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "a/", "..", "a\0b"])
def test_names_that_would_leave_the_mount(name: str) -> None:
    with pytest.raises(OutsideMount):
        Paths(MOUNT).of("dmsp", name)


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_path_is_below_the_mount(scope: str, name: str) -> None:
    try:
        path = Paths(MOUNT).of(scope, name)
    except OutsideMount:
        return
    except UnicodeEncodeError:
        return
    assert path.startswith("/scratch/lake/")
    assert ".." not in path.split("/")


def test_pfns() -> None:
    paths = Paths(MOUNT, "/eos/dmsp/scratch/")
    assert paths.of_pfn("davs://eos.test:443//eos/dmsp/scratch/dmsp/a%20b") == "/scratch/lake/dmsp/a b"
    assert paths.of_pfn("file://localhost:0/eos/dmsp/scratch/x") == "/scratch/lake/x"
    for pfn in (
        "file://h/eos/dmsp/scratchy/x",
        "file://h/eos/dmsp/scratch/",
        "file://h/eos/dmsp/scratch/../x",
        "file://h/eos/dmsp/scratch/%2e%2e/x",
        "file://h/etc/passwd",
        "",
    ):
        with pytest.raises(OutsideMount):
            paths.of_pfn(pfn)
    with pytest.raises(OutsideMount):
        Paths(MOUNT).of_pfn("file://h/x")


def test_links_out_of_the_mount_are_seen(tmp_path: Path) -> None:
    mount = tmp_path / "lake"
    mount.mkdir()
    (mount / "in").write_text("x")
    (mount / "out").symlink_to("/etc/passwd")
    paths = Paths(mount)
    assert paths.contains(str(mount / "in"))
    assert not paths.contains(str(mount / "out"))
    assert not paths.contains(str(tmp_path / "lakeside"))

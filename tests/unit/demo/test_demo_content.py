"""The demo's content without Rucio: places of files, names of the large scope, staging folders."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.demo import DEFAULT_SITES
from jupyterhub_dmsp.box.demo.placing import deterministic_path, place
from jupyterhub_dmsp.box.demo.scale import names
from jupyterhub_dmsp.box.demo.staging import INSIDE, SPEC, Content
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.did import Did

DID = Did("dmsp", "zee-tutorial.root")


def test_deterministic_path() -> None:
    # echo -n dmsp:zee-tutorial.root | md5sum
    assert deterministic_path(Path("/rse"), DID) == Path("/rse/dmsp/40/a8/zee-tutorial.root")
    assert str(deterministic_path(Path("/rse"), Did("user.km3net-user", "a"))).startswith(
        "/rse/user/km3net-user/"
    )


def test_a_file_is_placed_once_with_the_owner_of_the_rse(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "lake"
    source.write_bytes(b"events")
    root.mkdir()
    if os.geteuid() == 0:
        os.chown(root, 61999, 61998)
    assert place(source, root, DID, link=False)
    assert not place(source, root, DID, link=False)
    target = deterministic_path(root, DID)
    status = target.stat()
    assert (target.read_bytes(), status.st_mode & 0o7777) == (b"events", 0o640)
    assert (status.st_uid, status.st_gid) == (root.stat().st_uid, root.stat().st_gid)
    assert status.st_ino != source.stat().st_ino
    for folder in (target.parent, target.parent.parent, root / "dmsp"):
        assert folder.stat().st_mode & 0o7777 == 0o2750
        assert folder.stat().st_uid == root.stat().st_uid
    assert [entry.name for entry in target.parent.iterdir()] == [DID.name]


def test_a_leftover_of_an_interrupted_copy_is_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"events")
    target = deterministic_path(tmp_path, DID)
    target.parent.mkdir(parents=True)
    target.with_name(f".{DID.name}.part").write_bytes(b"ev")
    assert place(source, tmp_path, DID, link=True)
    assert target.stat().st_ino == source.stat().st_ino
    assert [entry.name for entry in target.parent.iterdir()] == [DID.name]


def test_a_damaged_file_is_not_placed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"events")
    with pytest.raises(DmspError, match="is damaged"):
        place(source, tmp_path, DID, link=False, adler32="00000001")
    assert not deterministic_path(tmp_path, DID).exists()
    assert place(source, tmp_path, DID, link=False, adler32="8EB0296")
    deterministic_path(tmp_path, DID).write_bytes(b"evants")
    with pytest.raises(DmspError, match="is damaged"):
        place(source, tmp_path, DID, link=False, adler32="08eb0296")


def test_a_file_of_another_size_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"events")
    target = deterministic_path(tmp_path, DID)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"other content")
    with pytest.raises(DmspError, match=r"dmsp:zee-tutorial\.root lies on its site with another size"):
        place(source, tmp_path, DID, link=False)
    assert target.read_bytes() == b"other content"


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 100_000])
def test_names_of_the_large_scope(count: int) -> None:
    found = names(count)
    assert len({did for did, _ in found}) == count
    assert sum(kind == "CONTAINER" for _, kind in found) == count // 1000
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,249}", did.name) for did, _ in found[:5000])


def test_more_names_keep_the_former_ones() -> None:
    assert names(3000)[:2000] == names(2000)


def test_unfinished_staging_is_no_content(tmp_path: Path) -> None:
    assert Content.read(tmp_path) is None
    (tmp_path / "catalogue.json").write_text('{"files": [')
    assert Content.read(tmp_path) is None


def test_content_is_limited_to_scopes_and_spread_over_sites(tmp_path: Path) -> None:
    file = {"bytes": 1, "adler32": "00000001", "meta": {}}
    catalogue = {
        "files": [{"scope": s, "name": n, **file} for s, n in (("dmsp", "a"), ("dmsp", "b"), ("km3net", "c"))],
        "datasets": [
            {"scope": "dmsp", "name": "d", "files": ["a", "b"], "sites": [0], "open": False, "meta": {}},
            {"scope": "dmsp", "name": "e", "files": ["a"], "sites": [2], "open": True, "meta": {}},
            {"scope": "km3net", "name": "f", "files": ["c"], "sites": [1], "open": False, "meta": {}},
        ],
        "containers": [{"scope": "dmsp", "name": "g", "children": ["d", "e"], "meta": {}}],
    }
    (tmp_path / "catalogue.json").write_text(json.dumps(catalogue))
    content = Content.read(tmp_path)
    assert content is not None
    content = content.limited_to({"dmsp"})
    a, b = Did("dmsp", "a"), Did("dmsp", "b")
    assert content.sites_of(3) == {a: (0, 2), b: (0,)}
    assert content.sites_of(2) == {a: (0,), b: (0,)}
    assert content.containers[0].children == (Did("dmsp", "d"), Did("dmsp", "e"))


def test_what_runs_in_the_environment_of_the_demo_knows_nothing_of_us() -> None:
    for source in INSIDE.glob("*.py"):
        assert "import jupyterhub_dmsp" not in source.read_text()
        assert "from jupyterhub_dmsp" not in source.read_text()
    assert SPEC.lock.exists()
    assert len(DEFAULT_SITES) == 3

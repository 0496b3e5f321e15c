"""Owners and modes of a storage element, without a lake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_dmsp.box.integrity import access
from jupyterhub_dmsp.box.integrity.facts import Facts
from jupyterhub_dmsp.box.rucio import storage
from jupyterhub_dmsp.errors import DmspError

SCRATCH, SITE = "SCRATCH", "SITE-ONE"


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    uid, gid = os.geteuid(), os.getegid()
    scopes = {"km3net": gid, "user.somebody": gid}
    storage.prepare(tmp_path / "storage", sites=[SITE], scratch=SCRATCH, scopes=scopes, uid=uid, gid=gid)
    return Facts(tmp_path / "storage", tmp_path, tmp_path, tmp_path, SCRATCH, (SITE,), scopes, uid, gid)


def _file(facts: Facts, rse: str, relative: str) -> Path:
    path = facts.root(rse) / relative
    for parent in reversed(path.relative_to(facts.root(rse)).parents[:-1]):
        directory = facts.root(rse) / parent
        if not directory.exists():
            directory.mkdir()
            directory.chmod(0o2750)
    path.write_bytes(b"x")
    path.chmod(0o640)
    return path


def test_what_the_box_makes_is_right(facts: Facts) -> None:
    _file(facts, SCRATCH, "km3net/ab/cd/deep/name")
    _file(facts, SCRATCH, "user/somebody/ab/cd/name")
    _file(facts, SITE, "km3net/ab/cd/name")
    assert access.check(facts, SCRATCH, repair=False) == []
    assert access.check(facts, SITE, repair=False) == []
    assert access.kept_directories(facts, SCRATCH) == ["km3net", "user", "user/somebody"]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o660, 0o4640, 0o777])
def test_a_wrong_mode_on_scratch_is_put_right(facts: Facts, mode: int) -> None:
    path = _file(facts, SCRATCH, "km3net/ab/cd/name")
    path.chmod(mode)
    found = access.check(facts, SCRATCH, repair=False)
    assert [(p.path, p.outcome) for p in found] == [("km3net/ab/cd/name", "")]
    assert f"{mode:04o} instead of 0640" in found[0].text
    assert path.stat().st_mode & 0o7777 == mode
    assert [p.outcome for p in access.check(facts, SCRATCH, repair=True)] == ["fixed"]
    assert path.stat().st_mode & 0o7777 == 0o640
    assert access.check(facts, SCRATCH, repair=False) == []


def test_sites_are_closed_at_their_root(facts: Facts) -> None:
    path = _file(facts, SITE, "km3net/ab/cd/name")
    path.chmod(0o644)
    assert access.check(facts, SITE, repair=False) == []
    path.chmod(0o646)
    assert len(access.check(facts, SITE, repair=True)) == 1
    assert path.stat().st_mode & 0o7777 == 0o640


def test_links_are_never_followed(facts: Facts, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o666)
    (facts.root(SCRATCH) / "km3net" / "link").symlink_to(outside)
    assert access.check(facts, SCRATCH, repair=True) == []
    assert outside.stat().st_mode & 0o777 == 0o666


def test_an_unknown_storage_element_is_one_sentence(facts: Facts) -> None:
    with pytest.raises(DmspError, match=r"no storage element X\. Known: SCRATCH, SITE-ONE\."):
        facts.root("X")


def test_facts_are_remembered(facts: Facts, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    facts.remember(tmp_path)
    assert Facts.of(tmp_path) == facts
    with pytest.raises(DmspError, match="dmsp down"):
        Facts.of(tmp_path / "elsewhere")

"""The readable view: hostile names, collisions, and never what is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.scratch.links import Links, LinksRefused, safe_name


@given(st.text(min_size=1, max_size=300))
def test_any_name_is_one_component(name: str) -> None:
    safe = safe_name(name)
    assert "/" not in safe
    assert safe not in {"", ".", ".."}
    assert len(safe.encode()) <= 255
    assert safe.isprintable()


@pytest.mark.parametrize("name", ["events.root", "run 1", "Δ.dat"])
def test_good_names_stay(name: str) -> None:
    assert safe_name(name) == name


def test_different_names_stay_different() -> None:
    names = ["a/b", "a_b", "a\\b", "a:b", "x" * 300, "x" * 301, "..", "...", "<script>", "\n", ".hidden"]
    assert len({safe_name(n) for n in names}) == len(names)


def test_make_again_and_remove(tmp_path: Path) -> None:
    links = Links(tmp_path / "datasets")
    made = links.make("dmsp", "a/b", [("f1", "/scratch/lake/1"), ("../f2", "/scratch/lake/2")], "id1")
    assert made.parent == tmp_path / "datasets" / "dmsp"
    assert sorted(p.readlink().name for p in made.iterdir() if p.is_symlink()) == ["1", "2"]
    assert (made / "f1").readlink() == Path("/scratch/lake/1")
    links.make("dmsp", "a/b", [("f1", "/scratch/lake/9"), ("f1", "/scratch/lake/8")], "id1")
    assert sorted(p.readlink().name for p in made.iterdir() if p.is_symlink()) == ["8", "9"]
    links.remove("dmsp", "a/b", "somebody else")
    assert made.exists()
    links.remove("dmsp", "a/b", "id1")
    assert not made.parent.exists()
    links.remove("dmsp", "a/b", "id1")


def test_what_the_user_made_stays(tmp_path: Path) -> None:
    links = Links(tmp_path)
    mine = links.directory("dmsp", "mine")
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("x")
    with pytest.raises(LinksRefused):
        links.make("dmsp", "mine", [("f", "/x")], "id")
    links.remove("dmsp", "mine", "id")
    assert (mine / "notes.txt").read_text() == "x"
    (tmp_path / "dmsp" / "link").symlink_to(mine)
    with pytest.raises(LinksRefused):
        links.make("dmsp", "link", [("f", "/x")], "id")
    links.remove("dmsp", "link", "id")
    assert mine.exists()

"""Numeric ids: the same for the same name, unique, never given away again."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from jupyterhub_dmsp.sandbox import ids
from jupyterhub_dmsp.sandbox.errors import SandboxError


def test_same_name_same_number(tmp_path: Path) -> None:
    one = ids.Ids(tmp_path / "users.json", 61000)
    assert [one.get(name) for name in ("a", "b", "a")] == [61000, 61001, 61000]
    assert ids.Ids(tmp_path / "users.json", 61000).get("b") == 61001


def test_number_of_a_former_user_is_not_reused(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    one = ids.Ids(file, 61000)
    for name in ("a", "b", "c"):
        one.get(name)
    file.write_text(json.dumps({"a": 61000, "c": 61002}))
    assert one.get("d") == 61003


def _allocate(arguments: tuple[str, str]) -> int:
    path, name = arguments
    return ids.Ids(Path(path), 61000).get(name)


def test_processes_do_not_collide(tmp_path: Path) -> None:
    jobs = [(str(tmp_path / "users.json"), f"user-{number % 20}") for number in range(60)]
    with ProcessPoolExecutor(4) as pool:
        found = list(pool.map(_allocate, jobs))
    assert sorted(set(found)) == list(range(61000, 61020))
    assert found[:20] == found[20:40] == found[40:]


def test_damaged_file_is_an_error_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    file.write_text("{not json")
    with pytest.raises(SandboxError, match="damaged"):
        ids.Ids(file, 61000).get("a")
    assert file.read_text() == "{not json"


def test_range_ends(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    file.write_text(json.dumps({"last": 61000 + ids.SPAN - 1}))
    with pytest.raises(SandboxError, match="No numeric id is left"):
        ids.Ids(file, 61000).get("a")


def test_empty_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name"):
        ids.Ids(tmp_path / "x", 1).get("")

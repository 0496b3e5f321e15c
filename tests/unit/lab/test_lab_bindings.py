"""Bindings follow their notebooks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jupyterhub_dmsp.lab.bindings import Bindings
from jupyterhub_dmsp.lab.records import Records


@pytest.fixture
async def bindings(tmp_path: Path) -> AsyncIterator[Bindings]:
    """Of a user with one notebook in a folder."""
    records = Records(tmp_path / "attachments.sqlite", "http://lake.example")
    made = Bindings(records, tmp_path / "run", tmp_path / "home")
    await made.put("work/a.ipynb", "events", "one")
    yield made
    await records.close()


def mirrored(tmp_path: Path) -> dict[str, list[str]]:
    """What a kernel would find."""
    found = [json.loads(path.read_text()) for path in (tmp_path / "run" / "bindings").glob("*.json")]
    return {Path(f["notebook"]).name: [b["variable"] for b in f["bindings"]] for f in found}


async def test_renamed_notebook_keeps_its_variables(bindings: Bindings, tmp_path: Path) -> None:
    await bindings.move("work/a.ipynb", "b.ipynb")
    assert bindings.of("b.ipynb") == [{"variable": "events", "attachment": "one"}]
    assert bindings.of("work/a.ipynb") == []
    assert mirrored(tmp_path) == {"a.ipynb": [], "b.ipynb": ["events"]}


async def test_renamed_folder(bindings: Bindings) -> None:
    await bindings.put("workshop.ipynb", "other", "two")
    await bindings.move("work", "done")
    assert bindings.of("done/a.ipynb")
    assert bindings.of("workshop.ipynb"), "a name that only begins alike stays"


async def test_new_notebook_of_a_deleted_name_starts_with_nothing(bindings: Bindings, tmp_path: Path) -> None:
    await bindings.forget("work/a.ipynb")
    assert bindings.of("work/a.ipynb") == []
    assert mirrored(tmp_path) == {"a.ipynb": []}

"""Variable names and the code that binds them; manifests; the interface and its description agree."""

from __future__ import annotations

import ast
import json
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.lab.api import ROUTES
from jupyterhub_dmsp.lab.bindings import Bindings
from jupyterhub_dmsp.lab.errors import BadRequest
from jupyterhub_dmsp.lab.manifest import Manifests, digest_of
from jupyterhub_dmsp.lab.records import Attachment, Records, attachment_id
from jupyterhub_dmsp.lab.snippets import RESERVED, snippets, suggest, valid
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile

OPENAPI = Path(__file__).parents[3] / "jupyterhub_dmsp" / "lab" / "openapi.yaml"


@pytest.mark.parametrize(
    ("name", "taken", "variable"),
    [
        ("events.root", [], "events"),
        ("zee_sample.ds", ["zee_sample"], "zee_sample_2"),
        ("mc/2026/Run-0042", [], "run_0042"),
        ("2026.data", [], "data_2026_data"),
        ("class", [], "class_data"),
        ("print", ["print_data"], "print_data_2"),
        ("Δ", [], "data"),
        ("<script>alert(1)</script>", [], "script"),
    ],
)
def test_suggestions(name: str, taken: list[str], variable: str) -> None:
    assert suggest(name, taken) == variable


@given(st.text(min_size=1, max_size=250), st.lists(st.text(max_size=10), max_size=5))
def test_a_suggestion_is_valid_everywhere_and_free(name: str, taken: list[str]) -> None:
    variable = suggest(name, taken)
    assert valid(variable)
    assert variable not in taken
    assert not any(variable in words for words in RESERVED.values())


def test_code_is_code_and_holds_no_path_list(tmp_path: Path) -> None:
    code = snippets("events", "0" * 16, tmp_path / 'a"b\\c', True)
    ast.parse(code["python"])
    assert set(code) == {"python", "c++", "r", "julia"}
    assert '\\"' in code["c++"]
    assert all(len(text) < 700 for text in code.values())
    later = snippets("events", "0" * 16, tmp_path, False)
    assert "std::vector" not in later["c++"]
    assert "DMSP-NOT-BOUND events" in later["r"]
    for bad in ("a b", "x;y", "class", ""):
        with pytest.raises(ValueError):
            snippets(bad, "0" * 16, tmp_path, True)
    with pytest.raises(ValueError):
        snippets("events", "../x", tmp_path, True)


def test_manifest(tmp_path: Path) -> None:
    manifests = Manifests(tmp_path)
    attachment = Attachment("a" * 16, "dmsp:ds", "ds", "replicating", files_total=1)
    manifests.write(attachment)
    directory = manifests.directory(attachment.id)
    assert not (directory / "paths.txt").exists()
    attachment.state = "ready"
    file = LakeFile(Did("dmsp", "Δ\u2009f"), 3, "0a")
    manifests.write(attachment, [file], ["/scratch/lake/Δ f"])
    assert (directory / "paths.txt").read_text() == "/scratch/lake/Δ f\n"
    data = json.loads((directory / "manifest.json").read_text())
    assert data["files"] == [{"name": "Δ\u2009f", "path": "/scratch/lake/Δ f", "bytes": 3}]
    assert {stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()} == {0o600}
    assert sorted(p.name for p in directory.iterdir()) == ["manifest.json", "paths.txt"]
    manifests.remove(attachment.id)
    assert not directory.exists()


def test_digest_is_of_the_content() -> None:
    a, b = LakeFile(Did("dmsp", "a"), 1, "x"), LakeFile(Did("dmsp", "b"), 2, "y")
    assert digest_of([a, b]) == digest_of([b, a]) != digest_of([a])


def test_ids_are_stable_and_of_the_lake() -> None:
    did = Did("dmsp", "ds")
    assert attachment_id("http://a", did) == attachment_id("http://a", did) != attachment_id("http://b", did)


async def test_bindings_survive_and_are_mirrored(tmp_path: Path) -> None:
    def make() -> tuple[Records, Bindings]:
        records = Records(tmp_path / "r.sqlite", "lake")
        return records, Bindings(records, tmp_path / "run", tmp_path / "work")

    records, bindings = make()
    await bindings.put("sub/n.ipynb", "one", "1" * 16)
    await bindings.put(str(tmp_path / "work/sub/n.ipynb"), "two", "2" * 16)
    await records.close()
    (mirror,) = (tmp_path / "run" / "bindings").glob("*.json")
    mirror.unlink()
    records, bindings = make()
    await bindings.load()
    data = json.loads(mirror.read_text())
    assert data["notebook"] == str(tmp_path / "work/sub/n.ipynb")
    assert (
        [b["variable"] for b in data["bindings"]]
        == ["one", "two"]
        == [b["variable"] for b in bindings.of("sub/n.ipynb")]
    )
    assert await bindings.delete("sub/n.ipynb", "one")
    assert not await bindings.delete("sub/n.ipynb", "one")
    assert stat.S_IMODE((tmp_path / "r.sqlite").stat().st_mode) == 0o600
    for notebook, variable in (("", "x"), ("a\0b", "x"), ("n", "a b")):
        with pytest.raises(BadRequest):
            await bindings.put(notebook, variable, "1" * 16)
    await records.close()


def test_description_and_interface_agree() -> None:
    spec = yaml.safe_load(OPENAPI.read_text())
    described = {
        (method.upper(), path, operation["x-kernel"], operation["operationId"])
        for path, item in spec["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert described == {(r.method, r.path, r.kernel, r.function.__name__) for r in ROUTES}


def test_description_is_valid_openapi() -> None:
    from openapi_spec_validator import validate

    validate(yaml.safe_load(OPENAPI.read_text()))

"""What a notebook imports, without a server: Datasets from manifests, bindings, exceptions."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

KERNEL = Path(__file__).parents[3] / "jupyterhub_dmsp" / "kernel"
IDENT = "0123456789abcdef"


@pytest.fixture
def dmsp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("DMSP_RUNTIME", str(tmp_path))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    spec = importlib.util.spec_from_file_location("dmsp", KERNEL / "dmsp.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dmsp", module)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def _write(root: Path, state: str = "ready", paths: Sequence[str] = (), **more: Any) -> None:
    directory = root / "attachments" / IDENT
    directory.mkdir(parents=True, exist_ok=True)
    files = [{"name": Path(p).name, "path": p, "bytes": 10} for p in paths]
    body = {"did": "dmsp:ds", "state": state, "files": files, "bytes": 10 * len(files), "missing": [], **more}
    (directory / "new").write_text(json.dumps(body))
    (directory / "new").rename(directory / "manifest.json")


def test_a_sequence_of_str(dmsp: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path, paths=["/s/a", "/s/b", "/s/c"])
    dataset = dmsp.Dataset(IDENT)
    assert isinstance(dataset, Sequence)
    assert (len(dataset), dataset[0], dataset[-1], dataset[1:]) == (3, "/s/a", "/s/c", ["/s/b", "/s/c"])
    assert list(dataset) == list(reversed(list(reversed(dataset)))) == dataset.paths
    assert "/s/b" in dataset
    assert dataset.index("/s/b") == 1
    assert repr(dataset) == str(dataset) == "<Dataset dmsp:ds, 3 files, 30 B>"
    assert (dataset.did, dataset.status, dataset.missing, dataset.bytes, dataset.error) == (
        "dmsp:ds",
        "ready",
        [],
        30,
        None,
    )
    with pytest.raises(TypeError, match="3 files"):
        os.fspath(dataset)
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(TypeError):
        dataset["/s/a"]
    assert dataset.count("/s/c") == 1
    assert "/s/d" not in dataset
    with pytest.raises(ValueError):
        dataset.index("/s/d")
    dataset.paths.clear()
    dataset[:].clear()
    assert len(dataset) == 3
    assert os.fspath(dataset[1]) == "/s/b"


def test_one_file_is_a_path(dmsp: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"hello")
    _write(tmp_path, paths=[str(file)])
    dataset = dmsp.Dataset(IDENT)
    assert isinstance(dataset, os.PathLike)
    with open(dataset, "rb") as opened:  # noqa: PTH123 - this is what users write
        assert opened.read() == b"hello"
    assert Path(dataset) == file
    assert str(dataset) == f"{dataset}" == str(file)


def test_pickles_to_a_plain_list(dmsp: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path, paths=["/s/a", "/s/b"])
    data = pickle.dumps(dmsp.Dataset(IDENT))
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()))"
    out = subprocess.run([sys.executable, "-I", "-c", code], input=data, capture_output=True, check=True)
    assert out.stdout.decode().strip() == "['/s/a', '/s/b']"
    _write(tmp_path, "replicating")
    with pytest.raises(dmsp.NotReady):
        pickle.dumps(dmsp.Dataset(IDENT))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_to_a_plain_list_with_all_protocols(dmsp: ModuleType, tmp_path: Path, protocol: int) -> None:
    _write(tmp_path, paths=["/s/a"])
    data = pickle.dumps({"events": dmsp.Dataset(IDENT)}, protocol)
    assert b"dmsp" not in data
    found = pickle.loads(data)["events"]
    assert type(found) is list
    assert [type(path) for path in found] == [str]
    assert found == ["/s/a"]


@pytest.mark.parametrize(
    ("state", "more", "words"),
    [
        ("requested", {}, "on its way"),
        ("replicating", {}, "on its way"),
        ("failed", {"error": {"message": "Your quota is used up.", "code": "quota"}}, "Your quota is used up."),
        ("stuck", {"error": {"message": "source file is missing", "code": "stuck"}}, "source file is missing"),
    ],
)
def test_never_an_empty_list(dmsp: ModuleType, tmp_path: Path, state: str, more: Any, words: str) -> None:
    _write(tmp_path, state, **more)
    dataset = dmsp.Dataset(IDENT)
    uses = (len, list, bool, os.fspath, lambda d: d[0], lambda d: d.paths, lambda d: "x" in d)
    for use in uses:
        with pytest.raises(dmsp.NotReady, match=words):
            use(dataset)
    assert dataset.status == state
    assert state in repr(dataset)
    assert issubclass(dmsp.NotReady, Exception)
    _write(tmp_path, paths=["/s/a"])
    assert list(dataset) == ["/s/a"]


def test_missing_files_are_named(dmsp: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path, "failed", missing=["b"], error={"message": "1 of 2 files.", "code": "not_landed"})
    assert dmsp.Dataset(IDENT).missing == ["b"]


def test_an_unreadable_manifest_says_so(dmsp: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path, paths=["/s/a"])
    (tmp_path / "attachments" / IDENT / "manifest.json").write_text("{broken")
    dataset = dmsp.Dataset(IDENT, "dmsp:ds")
    with pytest.raises(dmsp.DmspError, match="list of files of dmsp:ds cannot be read"):
        len(dataset)
    assert "cannot be read" in repr(dataset)
    assert "cannot be read" in str(dataset)


def test_released(dmsp: ModuleType) -> None:
    dataset = dmsp.Dataset(IDENT, "dmsp:ds")
    assert dataset.status == "released"
    with pytest.raises(dmsp.NotReady, match=r"dmsp\.attach\('dmsp:ds'\)"):
        dataset.paths  # noqa: B018


def test_the_notebooks_variables_are_bound(
    dmsp: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = SimpleNamespace(user_ns={})
    dmsp.load_ipython_extension(shell)
    assert shell.user_ns == {}
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/work/n.ipynb")
    dmsp.load_ipython_extension(shell)
    assert shell.user_ns == {}
    name = hashlib.sha256(b"/home/me/work/n.ipynb").hexdigest()[:16]
    (tmp_path / "bindings").mkdir()
    mirror = tmp_path / "bindings" / f"{name}.json"
    mirror.write_text(json.dumps({"bindings": [{"variable": "events", "attachment": IDENT}]}))
    _write(tmp_path, paths=["/s/a"])
    dmsp.load_ipython_extension(shell)
    assert list(shell.user_ns["events"]) == ["/s/a"]
    _write(tmp_path, "replicating")
    both = [{"variable": v, "attachment": i} for v, i in (("events", IDENT), ("gone", "f" * 16))]
    mirror.write_text(json.dumps({"bindings": both}))
    shell = SimpleNamespace(user_ns={"mine": 1})
    dmsp.load_ipython_extension(shell)
    assert sorted(shell.user_ns) == ["events", "gone", "mine"]
    assert [shell.user_ns[v].status for v in ("events", "gone")] == ["replicating", "released"]
    assert capsys.readouterr().err == ""
    mirror.write_text("{broken")
    dmsp.load_ipython_extension(shell)
    assert "not restored" in capsys.readouterr().err


def test_bind(dmsp: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path, paths=["/s/a"])
    names: dict[str, Any] = {}
    assert dmsp._bind(names, "events", IDENT, True) is None
    assert list(names["events"]) == ["/s/a"]
    assert capsys.readouterr().out == ""


def test_outside_of_a_session(dmsp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(dmsp.NoLake, match="Jupyter server"):
        dmsp.attach("dmsp:ds")
    monkeypatch.delenv("DMSP_RUNTIME")
    dataset = dmsp.Dataset(IDENT, "dmsp:ds")
    uses = (len, list, os.fspath, pickle.dumps, lambda d: d.status, lambda d: d.missing, lambda d: d.wait(1))
    for use in (*uses, lambda d: dmsp.attach("dmsp:ds"), lambda d: dmsp.datasets()):
        with pytest.raises(dmsp.NoLake, match="DMSP_RUNTIME"):
            use(dataset)
    assert "DMSP_RUNTIME" in repr(dataset)
    shell = SimpleNamespace(user_ns={})
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/n.ipynb")
    dmsp.load_ipython_extension(shell)
    assert shell.user_ns == {}
    with pytest.raises(TypeError):
        dmsp.attach(7)
    with pytest.raises(ValueError, match="variable"):
        dmsp.attach("dmsp:ds", variable="class")


def test_exceptions_cross_processes(dmsp: ModuleType) -> None:
    error = pickle.loads(pickle.dumps(dmsp.AttachFailed("words", "quota", "release")))
    assert (str(error), error.code, error.action) == ("words", "quota", "release")
    assert issubclass(dmsp.AttachTimeout, TimeoutError)
    named = {getattr(dmsp, name) for name in dmsp.__all__}
    errors = {e for e in named if isinstance(e, type) and issubclass(e, BaseException)}
    assert errors == {dmsp.DmspError, dmsp.NoLake, dmsp.NotReady, dmsp.AttachFailed, dmsp.AttachTimeout}
    assert all(issubclass(error, Exception) and issubclass(error, dmsp.DmspError) for error in errors)


def test_the_root_kernel_declares_what_is_ready(
    dmsp: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("dmsp_root", KERNEL / "dmsp_root.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    done: list[str] = []
    cling = SimpleNamespace(Declare=lambda text: done.append("helper"), ProcessLine=done.append)
    module.declare(cling, [("gone", "f" * 16)])
    assert done == ["helper"]
    assert "gone is not declared" in capsys.readouterr().err
    _write(tmp_path, paths=["/s/a"])
    module.declare(cling, [("events", IDENT)])
    assert done[-1].startswith("std::vector<std::string> events = dmsp::read(")


def test_the_root_kernel_then_is_the_stock_one(dmsp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("dmsp_root", KERNEL / "dmsp_root.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    done: list[str] = []
    cling = SimpleNamespace(Declare=lambda text: done.append("helper"), ProcessLine=done.append)
    monkeypatch.setitem(sys.modules, "ROOT", SimpleNamespace(gInterpreter=cling))
    monkeypatch.setattr(module.runpy, "run_module", lambda name, run_name: done.append(f"{name} {run_name}"))
    module.main()
    assert done == ["helper", "ROOT._jupyroot.kernel.rootkernel __main__"]

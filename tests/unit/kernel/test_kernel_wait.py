"""What a notebook asks of its Jupyter server: attach, wait, datasets, release; the server is a fake."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import shutil
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SOURCE = Path(__file__).parents[3] / "jupyterhub_dmsp" / "kernel" / "dmsp.py"
IDENT = "0123456789abcdef"
Answer = tuple[int, Any]


def _record(state: str = "replicating", **more: Any) -> dict[str, Any]:
    sizes = {"files_ready": 1, "files_total": 2, "bytes_ready": 1500, "bytes_total": 3000}
    return {"id": IDENT, "did": "dmsp:ds", "state": state, "error": None, **sizes, **more}


class Lake:
    """A fake server: it notes requests and gives ``answer(method, path)``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: list[tuple[str, str, Any]] = []
        self.answer: Callable[[str, str], Answer] = lambda method, path: (200, _record())

    def manifest(self, state: str, *paths: str, **more: Any) -> None:
        """Write the manifest as the server does."""
        directory = self.root / "attachments" / IDENT
        directory.mkdir(parents=True, exist_ok=True)
        body = {"did": "dmsp:ds", "state": state, "files": [{"path": p} for p in paths], **more}
        (directory / "new").write_text(json.dumps(body))
        (directory / "new").rename(directory / "manifest.json")


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    root = Path(tempfile.mkdtemp(prefix="dmsp-"))  # a socket's path must be short
    found = Lake(root)

    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.seen.append((self.command, self.path, json.loads(raw) if raw else None))
            status, body = found.answer(self.command, self.path)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            with contextlib.suppress(BrokenPipeError):  # who asked gave up
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _any

    server = socketserver.ThreadingUnixStreamServer(str(root / "lake.sock"), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("DMSP_RUNTIME", str(root))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
    shutil.rmtree(root)


@pytest.fixture
def dmsp(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("dmsp", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dmsp", module)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    spec.loader.exec_module(module)
    return module


def test_wait_returns_the_dataset_when_it_is_ready(dmsp: ModuleType, lake: Lake) -> None:
    lake.manifest("replicating")
    dataset = dmsp.Dataset(IDENT)
    with pytest.raises(dmsp.NotReady, match="on its way"):
        len(dataset)

    def land(method: str, path: str) -> Answer:
        if len(lake.seen) < 2:
            return 200, _record()
        lake.manifest("ready", "/s/a", "/s/b")
        return 200, _record("ready")

    lake.answer = land
    assert dataset.wait(quiet=True) is dataset
    assert (dataset.status, list(dataset)) == ("ready", ["/s/a", "/s/b"])
    assert [(method, path) for method, path, _ in lake.seen] == [
        ("GET", f"/dmsp/v1/attachments/{IDENT}?wait=20")
    ] * 2
    assert dataset.wait(0) is dataset
    assert len(lake.seen) == 2


def test_wait_ends_with_its_timeout(dmsp: ModuleType, lake: Lake) -> None:
    lake.manifest("replicating")
    dataset = dmsp.Dataset(IDENT)
    with pytest.raises(dmsp.AttachTimeout, match=r"dmsp:ds has not arrived within 0\.05 s") as caught:
        dataset.wait(0.05)
    assert isinstance(caught.value, TimeoutError)
    assert {path.partition("?")[2] for _, path, _ in lake.seen} == {"wait=1"}
    seen = len(lake.seen)
    with pytest.raises(dmsp.AttachTimeout):
        dataset.wait(0)
    assert (len(lake.seen), dataset.status) == (seen, "replicating")


@pytest.mark.parametrize("state", ["failed", "stuck"])
def test_wait_ends_when_the_lake_gives_up(dmsp: ModuleType, lake: Lake, state: str) -> None:
    fault = {"message": "Your quota is used up.", "code": "quota", "action": "release"}
    lake.manifest("replicating")
    lake.answer = lambda method, path: (200, _record(state, error=fault))
    with pytest.raises(dmsp.AttachFailed, match=r"^dmsp:ds: Your quota is used up\.$") as caught:
        dmsp.Dataset(IDENT).wait(5)
    assert (caught.value.code, caught.value.action) == ("quota", "release")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_wait_ends_when_it_was_released(dmsp: ModuleType, lake: Lake) -> None:
    lake.answer = lambda method, path: (200, _record("released"))
    with pytest.raises(dmsp.AttachFailed, match="not attached any more"):
        dmsp.Dataset(IDENT, "dmsp:ds").wait(5)


def test_wait_tells_how_far_it_is(
    dmsp: ModuleType, lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def land(method: str, path: str) -> Answer:
        if len(lake.seen) > 1:
            lake.manifest("ready", "/s/a")
        return 200, _record()

    lake.answer = land
    lake.manifest("replicating")
    dmsp.Dataset(IDENT).wait(quiet=True)
    assert capsys.readouterr().err == ""
    lake.seen.clear()
    lake.manifest("replicating")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    dmsp.Dataset(IDENT).wait()
    assert capsys.readouterr().err == "\rdmsp:ds: replicating, 1 of 2 files, 1.5 kB of 3.0 kB\n"


def test_attach(dmsp: ModuleType, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    shell = SimpleNamespace(user_ns=names)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/n.ipynb")
    lake.manifest("requested")
    dataset = dmsp.attach("dmsp:ds", wait=False)
    assert (dataset.did, dataset.id, dataset.status) == ("dmsp:ds", IDENT, "requested")
    assert names == {}
    lake.manifest("ready", "/s/a")
    dataset = dmsp.attach("dmsp:ds", variable="events", lifetime=60.5)
    assert names["events"] is dataset
    assert os.fspath(dataset) == "/s/a"
    assert lake.seen == [
        ("POST", "/dmsp/v1/attachments", {"did": "dmsp:ds"}),
        (
            "POST",
            "/dmsp/v1/attachments",
            {"did": "dmsp:ds", "variable": "events", "notebook": "/home/me/n.ipynb", "lifetime": 60},
        ),
    ]


def test_a_refusal_keeps_its_sentence(dmsp: ModuleType, lake: Lake) -> None:
    fault = {"message": "There is no such DID.", "code": "not_found", "action": "search"}
    lake.answer = lambda method, path: (404, {"error": fault})
    with pytest.raises(dmsp.AttachFailed, match="There is no such DID") as caught:
        dmsp.attach("dmsp:none")
    assert (caught.value.code, caught.value.action) == ("not_found", "search")
    lake.answer = lambda method, path: (502, b"<html>")
    with pytest.raises(dmsp.DmspError, match=r"not JSON \(status 502\)"):
        dmsp.attach("dmsp:none")


def test_a_silent_server(dmsp: ModuleType, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def late(method: str, path: str) -> Answer:
        done.wait(10)
        return 204, b""

    lake.answer = late
    monkeypatch.setattr(dmsp, "_REQUEST_TIMEOUT", 0.1)
    with pytest.raises(dmsp.DmspError, match="did not answer in time"):
        dmsp.datasets()
    done.set()


def test_datasets_and_release(dmsp: ModuleType, lake: Lake) -> None:
    def answer(method: str, path: str) -> Answer:
        return (204, b"") if method == "DELETE" else (200, {"attachments": [_record("ready")]})

    lake.answer = answer
    lake.manifest("ready", "/s/a")
    assert {did: list(dataset) for did, dataset in dmsp.datasets().items()} == {"dmsp:ds": ["/s/a"]}
    assert dmsp.release("dmsp:ds") is None
    assert lake.seen[-1][:2] == ("DELETE", f"/dmsp/v1/attachments/{IDENT}")
    with pytest.raises(dmsp.DmspError, match="dmsp:other is not attached"):
        dmsp.release("dmsp:other")

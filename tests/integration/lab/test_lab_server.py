"""A real server, a real lake, real kernels: from a click to a path that can be read."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

pytestmark = pytest.mark.root


def _content(did: str, count: int, size: int = 1000) -> dict[str, bytes]:
    name = did.split(":")[1]
    return {f"{name}.{number:04d}": os.urandom(size + number) for number in range(count)}


async def test_browse(server: Any, lake: Any, did: Any) -> None:
    dataset = did("km3net")
    name = dataset.split(":")[1]
    lake.put(dataset, _content(dataset, 30))
    lake.root("POST", f"/dids/km3net/{name}.ct", {"type": "CONTAINER"})
    lake.root("POST", f"/dids/km3net/{name}.ct/dids", {"dids": [{"scope": "km3net", "name": name}]})
    await server.start()
    scopes = await server.page("")
    assert {"km3net", "dmsp"} <= {row["scope"] for row in scopes["rows"]}
    top = await server.page("km3net", pattern=name)
    assert [(r["name"], r["kind"]) for r in top["rows"]] == [(f"{name}.ct", "container")]
    inside = await server.page(f"km3net:{name}.ct")
    assert [r["name"] for r in inside["rows"]] == [name]
    files = await server.page(dataset, sort="bytes", order="desc", limit=10)
    assert (files["total"], len(files["rows"])) == (30, 10)
    assert [r["bytes"] for r in files["rows"]] == list(range(1029, 1019, -1))
    assert {r["availability"] for r in files["rows"]} == {"none"}
    second = await server.page(dataset, sort="bytes", order="desc", offset=10, limit=10)
    assert second["rows"][0]["bytes"] == 1019
    details = await server.call("GET", f"did?did={dataset}")
    assert (details["kind"], details["length"], details["parents"][0]["name"]) == ("dataset", 30, f"{name}.ct")
    async with asyncio.timeout(20):
        while (row := (await server.page(f"km3net:{name}.ct"))["rows"][0])["length"] is None:
            await asyncio.sleep(0.1)
    assert (row["length"], row["bytes"]) == (30, sum(1000 + n for n in range(30)))
    assert row["created"] == pytest.approx(time.time(), abs=300)


async def test_attach_what_is_on_no_scratch(server: Any, lake: Any, did: Any) -> None:
    dataset = did("km3net")
    content = _content(dataset, 20)
    lake.put(dataset, content)
    await server.start()
    states: list[str] = []
    url = f"ws://127.0.0.1:{server.port}/api/events/subscribe"
    headers = {"Authorization": server.http.headers["Authorization"]}
    async with aiohttp.ClientSession(headers=headers) as session, session.ws_connect(url) as ws:
        attached = await server.attach(dataset)
        assert attached["state"] in {"requested", "replicating"}
        ready = await server.until(attached["id"], "ready", "failed", "stuck")
        async with asyncio.timeout(10):
            while "ready" not in states:
                event = await ws.receive_json()
                if event.get("id") == attached["id"]:
                    states.append(event["state"])
    assert ready["state"] == "ready", ready
    assert list(dict.fromkeys(states))[-1] == "ready"
    assert (ready["files_ready"], ready["files_total"]) == (20, 20)
    assert ready["bytes_ready"] == ready["bytes_total"] == sum(map(len, content.values()))
    rule = lake.root("GET", f"/rules/{ready['rule_id']}")
    assert (rule["state"], rule["locks_ok_cnt"], rule["account"]) == ("OK", 20, server.account)
    paths = (server.runtime / "attachments" / ready["id"] / "paths.txt").read_text().splitlines()
    assert sorted(Path(p).read_bytes() for p in paths) == sorted(content.values())
    links = sorted((server.root / "home" / "datasets" / "km3net").glob("*/*"))
    assert [link.read_bytes() for link in links if link.is_symlink()] == list(content.values())
    files = await server.page(dataset)
    assert {row["availability"] for row in files["rows"]} == {"all"}


async def test_a_large_file_moves_its_bar(server: Any, lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    size = 512 * 2**20
    lake.put(dataset, {dataset.split(":")[1] + ".big": bytes(size)})
    await server.start()
    # However fast the disk: copies rest after each MiB.
    await asyncio.to_thread(lake.start_daemons, DMSP_RUCIO_COPY_PAUSE="0.01")
    attached = await server.attach(dataset)
    seen: set[int] = set()
    async with asyncio.timeout(120):
        while (found := await server.call("GET", f"attachments/{attached['id']}"))["state"] != "ready":
            assert found["state"] in {"requested", "replicating", "landing"}, found
            seen.add(found["bytes_ready"])
            await asyncio.sleep(0.05)
    await asyncio.to_thread(lake.start_daemons)
    assert any(0 < moved < size for moved in seen), sorted(seen)
    assert found["bytes_ready"] == size


async def test_killed_and_started_again_while_replicating(server: Any, lake: Any, did: Any) -> None:
    dataset = did("km3net")
    lake.put(dataset, _content(dataset, 200))
    await server.start()
    attached = await server.attach(dataset)
    await server.until(attached["id"], "replicating", "landing", "ready")
    server.stop(signal.SIGKILL)
    await server.start()
    ready = await server.until(attached["id"], "ready")
    assert ready["rule_id"] is not None
    assert len(lake.root("GET", f"/dids/{dataset.replace(':', '/')}/rules")) == 1
    # Ready, stopped, started: the manifest is there again before anybody asks.
    server.stop(signal.SIGKILL)
    manifest = server.runtime / "attachments" / attached["id"] / "manifest.json"
    manifest.unlink()
    await server.start()
    assert (await server.call("GET", f"attachments/{attached['id']}"))["state"] == "ready"
    assert json.loads(manifest.read_text())["state"] == "ready"


async def test_a_kernel_attaches_without_a_browser(server: Any, lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    content = _content(dataset, 3)
    lake.put(dataset, content)
    await server.start()
    kernel = await server.kernel("deep/note book.ipynb")
    out, status = await kernel.run(
        f"import dmsp\nd = dmsp.attach({dataset!r}, variable='events')\n"
        "print(len(d), sum(len(open(p, 'rb').read()) for p in d), events is d)"
    )
    assert (out.strip(), status) == (f"3 {sum(map(len, content.values()))} True", "ok")
    await kernel.restart()
    out, status = await kernel.run("print(len(events), events.status)")
    assert (out.strip(), status) == ("3 ready", "ok")
    _, status = await kernel.run("import dmsp\ndmsp.attach('dmsp:there-is-no-such')")
    assert status.startswith("AttachFailed: dmsp:there-is-no-such: The data lake has no dmsp:there-is-no-such")
    _, status = await kernel.run("dmsp.attach('nonsense')")
    assert status.startswith("AttachFailed: ")
    bindings = await server.call("GET", "bindings?notebook=deep/note%20book.ipynb")
    assert [b["variable"] for b in bindings["bindings"]] == ["events"]
    out, _ = await kernel.run(
        "import os; print([k for k, v in os.environ.items() if 'eyJ' in v or 'token' in k.lower()])"
    )
    assert out.strip() == "[]"


async def test_a_variable_bound_by_the_panel_is_there_after_a_restart(server: Any, lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    lake.put(dataset, _content(dataset, 2))
    await server.start()
    attached = await server.attach(dataset)
    await server.until(attached["id"], "ready")
    kernel = await server.kernel("n.ipynb")
    body = {"notebook": "n.ipynb", "variable": "mine", "attachment": attached["id"]}
    code = (await server.call("PUT", "bindings", body))["code"]
    _, status = await kernel.run(code["python"], silent=True)
    assert status == "ok"
    assert (await kernel.run("print(len(mine))"))[0].strip() == "2"
    # Server killed, started again, notebook opened again: nothing was injected, the variable is there.
    server.stop(signal.SIGKILL)
    await server.start()
    kernel = await server.kernel("n.ipynb")
    assert (await kernel.run("print(len(mine))"))[0].strip() == "2"
    await server.call("DELETE", "bindings?notebook=n.ipynb&variable=mine", expect=204)
    await kernel.restart()
    assert (await kernel.run("print(len(mine))"))[1].startswith("NameError")


async def test_bindings_follow_the_notebook(server: Any, lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    lake.put(dataset, _content(dataset, 1))
    await server.start()
    attached = await server.attach(dataset)
    await server.until(attached["id"], "ready")
    notebook = {
        "type": "notebook",
        "content": {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5},
    }
    made = await server.http.put("/api/contents/a.ipynb", json=notebook)
    assert made.status_code == 201, (made.text, server.log())
    body = {"notebook": "a.ipynb", "variable": "mine", "attachment": attached["id"]}
    await server.call("PUT", "bindings", body)
    assert (await server.http.patch("/api/contents/a.ipynb", json={"path": "b.ipynb"})).status_code == 200

    async def variables(name: str, expected: list[str]) -> None:
        """Jupyter delivers its events a moment later."""
        async with asyncio.timeout(10):
            while True:
                found = (await server.call("GET", f"bindings?notebook={name}"))["bindings"]
                if [b["variable"] for b in found] == expected:
                    return
                await asyncio.sleep(0.02)

    await variables("b.ipynb", ["mine"])
    await variables("a.ipynb", [])
    assert (await server.http.delete("/api/contents/b.ipynb")).status_code == 204
    await variables("b.ipynb", [])


async def test_rule_deleted_behind_our_back(server: Any, lake: Any, did: Any) -> None:
    dataset = did("km3net")
    lake.put(dataset, _content(dataset, 400))
    await server.start()
    attached = await server.attach(dataset)
    found = await server.until(attached["id"], "replicating")
    lake.root("PUT", f"/rules/{found['rule_id']}", {"options": {"lifetime": 0, "purge_replicas": True}})
    failed = await server.until(attached["id"], "failed", "ready")
    assert failed["state"] == "failed", failed
    assert (failed["error"]["code"], failed["error"]["action"]) == ("rule_gone", "retry")


async def test_each_file_that_does_not_arrive_has_its_reason(server: Any, lake: Any, did: Any) -> None:
    dataset = did("km3net")
    content = _content(dataset, 8)
    files = lake.put(dataset, content)
    whole = {file: lake.place("SITE-NORTH", file).read_bytes() for file in files}
    lake.place("SITE-NORTH", files[2]).unlink()
    lake.place("SITE-NORTH", files[5]).write_bytes(bytes(len(whole[files[5]])))
    await server.start()
    attached = await server.attach(dataset)
    stuck = await server.until(attached["id"], "stuck", "failed", "ready")
    assert (stuck["state"], stuck["error"]["code"], stuck["error"]["action"]) == ("stuck", "stuck", "retry")
    told = await server.call("GET", f"attachments/{attached['id']}/failures")
    assert told["total"] == 2
    assert {file["did"]: file["reason"] for file in told["files"]} == {
        files[2]: "The file is missing at SITE-NORTH.",
        files[5]: told["files"][1]["reason"],
    }
    assert "The file at SITE-NORTH is damaged: its adler32 is" in told["files"][1]["reason"]
    # The sites are cured, the user tries again.
    for file in (files[2], files[5]):
        place = lake.place("SITE-NORTH", file)
        place.write_bytes(whole[file])
        os.chown(place, *[lake.place("SITE-NORTH", files[0]).stat().st_uid] * 2)
    await server.call("POST", f"attachments/{attached['id']}/retry")
    await server.until(attached["id"], "ready")
    assert await server.call("GET", f"attachments/{attached['id']}/failures") == {"files": [], "total": 0}
    await server.call("GET", f"attachments/{'0' * 16}/failures", expect=404)


async def test_release_frees_and_the_files_go(server: Any, lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    (file,) = lake.put(dataset, _content(dataset, 1))
    await server.start()
    attached = await server.attach(dataset)
    ready = await server.until(attached["id"], "ready")
    extended = await server.call("POST", f"attachments/{attached['id']}/extend", {"lifetime": 7200})
    assert extended["expires_at"] == pytest.approx(time.time() + 7200, abs=60)
    released = await server.call("DELETE", f"attachments/{attached['id']}?purge=true")
    assert (released["state"], released["error"]) == ("released", None)
    await server.call("GET", f"attachments/{attached['id']}", expect=404)
    place = lake.place("SCRATCH", file)
    lake.until(lambda: not place.exists(), 60, "the reaper to remove the file")
    assert lake.root.http.get(f"/rules/{ready['rule_id']}").status_code == 404
    assert not list((server.root / "home" / "datasets").glob("dmsp/*"))
    # And again: the same attachment, from the start.
    again = await server.attach(dataset)
    assert again["id"] == attached["id"]
    await server.until(again["id"], "ready")


async def test_two_servers_of_a_user_have_one_list(server: Any, second: Any, lake: Any, did: Any) -> None:
    dataset = did("km3net")
    lake.put(dataset, _content(dataset, 3))
    await server.start()
    await second.start()
    ident = (await server.attach(dataset))["id"]
    ready = await server.until(ident, "ready")
    async with asyncio.timeout(20):
        while not (await second.call("GET", "attachments"))["attachments"]:
            await asyncio.sleep(0.2)
    there = await second.until(ident, "ready")
    assert there["rule_id"] == ready["rule_id"]
    await second.call("PUT", "bindings", {"notebook": "two.ipynb", "variable": "data", "attachment": ident})
    kernel = await second.kernel("two.ipynb")
    assert await kernel.run("print(len(data))") == ("3\n", "ok")
    await server.call("DELETE", f"attachments/{ident}")
    async with asyncio.timeout(20):
        while (await second.call("GET", "attachments"))["attachments"]:
            await asyncio.sleep(0.2)
    assert not (second.runtime / "attachments" / ident).exists()
    assert lake.root.http.get(f"/rules/{ready['rule_id']}").status_code == 404
    # Both ended and started again: it stays released.
    for one in (server, second):
        one.stop()
        await one.start()
        assert (await one.call("GET", "attachments"))["attachments"] == []


async def test_refusals_have_a_sentence_and_an_action(server: Any, lake: Any, did: Any) -> None:
    secret, big, empty = did("collider"), did("km3net"), did("dmsp")
    lake.put(secret, _content(secret, 1))
    lake.put(big, _content(big, 2))
    lake.root("POST", f"/dids/{empty.replace(':', '/')}", {"type": "DATASET"})
    lake.root("POST", f"/accountlimits/local/{server.account}/SCRATCH", {"bytes": 100})
    await server.start()
    for what, code, action in (
        (secret, "forbidden", "contact"),
        (big, "quota", "release"),
        (empty, "empty", "none"),
        ("dmsp:is-not-there", "not_found", "none"),
    ):
        attached = await server.attach(what)
        failed = await server.until(attached["id"], "failed", "ready")
        assert failed["state"] == "failed", failed
        assert (failed["error"]["code"], failed["error"]["action"]) == (code, action), failed
        assert failed["error"]["message"].endswith(".")


HOSTILE = [
    "dmsp:../../../etc/passwd",
    "dmsp:a/../../../b",
    "dmsp:<script>alert(1)</script>",
    "dmsp:with space and 'quotes\"",
    "dmsp:Δ/μ?x=1#y%2e%2e",
    "dmsp:one:two",
    "dmsp:" + "n" * 250,
    "dmsp:'; DROP TABLE dids; --",
]


async def test_hostile_dids(server: Any) -> None:
    await server.start()
    for text in HOSTILE:
        attached = await server.attach(text)
        failed = await server.until(attached["id"], "failed")
        assert failed["did"] == text
        # Rucio fails on its own message when a name that it does not know is not ASCII.
        foreign = set() if text.isascii() else {"rucio_fault"}
        assert failed["error"]["code"] in {"not_found", "refused", "outside_mount", *foreign}, failed
        answer = await server.http.get("/dmsp/v1/did", params={"did": text})
        assert answer.status_code in {400, 404, 502 if foreign else 404}
        assert set(answer.json()["error"]) == {"code", "message", "action", "request_id"}
    for text in (
        "",
        "dmsp",
        "dmsp:",
        ":x",
        "dmsp:a\nb",
        "a b:c",
        "dmsp:" + "n" * 251,
        "s" * 26 + ":n",
        "dmsp:..",
    ):
        error = (await server.call("POST", "attachments", {"did": text}, expect=400))["error"]
        assert error["code"] in {"bad_did", "bad_request"}
    assert not list((server.root / "home").glob("datasets/*"))
    assert (await server.http.get("/dmsp/v1/children", params={"parent": "a b"})).status_code == 400
    for body in (
        "x",
        "[]",
        "7",
        '{"did": 7}',
        '{"did": "dmsp:a", "variable": "class"}',
        '{"did": "dmsp:a", "lifetime": "x"}',
    ):
        answer = await server.http.post("/dmsp/v1/attachments", content=body)
        assert answer.status_code == 400, body
    assert (await server.http.get("/dmsp/v1/attachments/..%2F..%2Fx")).status_code == 404


async def test_login_expired_and_come_back(server: Any, lake: Any, did: Any) -> None:
    dataset = did("dmsp")
    lake.put(dataset, _content(dataset, 1))
    server.log_in(exp=int(time.time()) - 60)
    await server.start()
    status = await server.call("GET", "status")
    assert (status["lake"]["ok"], status["lake"]["error"]["action"]) == (False, "login")
    attached = await server.attach(dataset)
    failed = await server.until(attached["id"], "failed")
    assert failed["error"]["action"] == "login"
    server.log_in()
    await server.call("POST", f"attachments/{attached['id']}/retry")
    await server.until(attached["id"], "ready")


async def test_the_lake_is_down(server: Any) -> None:
    await server.start("http://127.0.0.1:9")
    status = await server.call("GET", "status")
    assert (status["lake"]["ok"], status["lake"]["error"]["code"]) == (False, "rucio_down")
    assert status["mount"]["state"] == "ok"
    error = (await server.call("GET", "children?parent=", expect=503))["error"]
    assert (error["code"], error["action"]) == ("rucio_down", "retry")
    # Others do not wait for a lake that does not answer.
    slow = asyncio.create_task(server.http.get("/dmsp/v1/children", params={"parent": "dmsp"}))
    assert (await server.http.get("/api/status")).status_code == 200
    await slow


async def test_nobody_else_gets_in(server: Any) -> None:
    await server.start()
    async with httpx.AsyncClient(base_url=str(server.http.base_url), trust_env=False) as stranger:
        for method, path in (
            ("GET", "status"),
            ("GET", "attachments"),
            ("POST", "attachments"),
            ("PUT", "bindings"),
        ):
            assert (await stranger.request(method, f"/dmsp/v1/{path}")).status_code == 403
    socket = server.runtime / "lake.sock"
    assert stat.S_IMODE(server.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    data = server.root / "home/.local/share/dmsp"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "attachments.sqlite").stat().st_mode) == 0o600
    token = server.token_file.read_text()
    server.stop(signal.SIGTERM)
    assert not socket.exists()
    assert token not in server.log()
    for file in (*server.runtime.rglob("*"), *(server.root / "home").rglob("*")):
        assert not file.is_file() or token.encode() not in file.read_bytes()

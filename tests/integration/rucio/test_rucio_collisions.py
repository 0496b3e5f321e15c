"""Requests to Rucio that meet another transaction, or new keys of the issuer, on their way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from jupyterhub_dmsp.box.rucio import parts
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.errors import Changing

pytestmark = pytest.mark.root

HOLD = """
import configparser, sys, psycopg
settings = configparser.ConfigParser()
settings.read(sys.argv[1])
url = settings["database"]["default"].replace("+psycopg", "")
with psycopg.connect(url) as connection:
    rows = connection.execute(f"select 1 from replicas where name like '{sys.argv[2]}.%' for update").fetchall()
    print(len(rows), flush=True)
    sys.stdin.readline()
"""


class _Fixed:
    def __init__(self, text: str) -> None:
        self.access_token = SecretStr(text)

    async def get(self) -> Any:
        return self


def _on_scratch(lake: Any, did: Any) -> tuple[str, Any]:
    dataset: str = did("dmsp")
    name = dataset.split(":")[1]
    lake.put(dataset, {f"{name}.{n}": b"%03d" % n for n in range(20)})
    first = lake.user("first-user")
    first.wait(first.rule(dataset))
    return dataset, lake.user("second-user")


def test_a_rule_on_files_that_another_transaction_holds_is_made_when_it_is_over(lake: Any, did: Any) -> None:
    """Stock Rucio asks for the rows without waiting and answers 500."""
    dataset, second = _on_scratch(lake, did)
    command = [str(lake.env / "bin" / "python"), "-c", HOLD, str(lake.state / "rucio" / "rucio.cfg")]
    with subprocess.Popen(
        [*command, dataset.split(":")[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline().strip() == "40"  # at its site and on scratch
        with ThreadPoolExecutor() as threads:
            rule = threads.submit(second.rule, dataset)
            refused = "could not obtain lock on row"
            lake.until(lambda: refused in (lake.state / "database.log").read_text(), 20, "the collision")
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert second.state(rule.result(20))["state"] == "OK"


def test_many_rules_made_and_ended_on_the_same_files_cost_nobody_an_error(lake: Any, did: Any) -> None:
    dataset, _ = _on_scratch(lake, did)
    users = [lake.user(f"collision-{n}") for n in range(6)]

    def work(user: Any) -> list[tuple[int, str]]:
        answers = []
        scope, name = dataset.split(":")
        for _ in range(6):
            body = {"dids": [{"scope": scope, "name": name}], "copies": 1, "rse_expression": "SCRATCH"}
            body |= {"lifetime": 600, "account": user.account}
            made = user("POST", "/rules/", body, check=False)
            answers.append((made.status_code, made.text))
            if made.status_code == 201:
                rule = made.json()[0]
                user.wait(rule)
                options = {"options": {"lifetime": 0, "purge_replicas": True}}
                ended = user("PUT", f"/rules/{rule}", options, check=False)
                answers.append((ended.status_code, ended.text))
                lake.until(lambda rule=rule: user("GET", f"/rules/{rule}", check=False).status_code == 404)
        return answers

    with ThreadPoolExecutor(len(users)) as threads:
        answers = [answer for of_user in threads.map(work, users) for answer in of_user]
    assert [answer for answer in answers if answer[0] not in (200, 201)] == []
    assert [status for status, _ in answers].count(201) == 36


async def test_files_that_are_being_deleted_are_waited_for(lake: Any, did: Any) -> None:
    dataset, second = _on_scratch(lake, did)
    like = f"where name = '{dataset.split(':')[1]}.3' and lock_cnt > 0"
    lake.sql(f"update replicas set state='B' {like} returning 1")
    tokens = _Fixed(lake.issuer.token("second-user"))
    async with RucioClient(lake.url, "", "second-user", tokens) as client:
        with pytest.raises(Changing) as raised:
            await client.pin(Did.parse(dataset), "SCRATCH", 600)
        assert (raised.value.code, raised.value.action) == ("changing", "wait")
        lake.sql(f"update replicas set state='A' {like} returning 1")
        pinned = await client.pin(Did.parse(dataset), "SCRATCH", 600)
        assert (await client.rule(pinned.rule_id)).state == "OK"
    del second


async def test_an_own_rule_that_is_being_ended_is_not_taken_for_one_that_stays(lake: Any, did: Any) -> None:
    """Rucio deletes what it has found to be expired, whatever has become of it meanwhile."""
    dataset, _ = _on_scratch(lake, did)
    tokens = _Fixed(lake.issuer.token("second-user"))
    async with RucioClient(lake.url, "", "second-user", tokens) as client:
        lake.stop("daemons")
        try:
            ending = (await client.pin(Did.parse(dataset), "SCRATCH", 600)).rule_id
            await client.end_rule(ending, purge=True)
            with pytest.raises(Changing):
                await client.pin(Did.parse(dataset), "SCRATCH", 600)
        finally:
            await asyncio.to_thread(lake.start_daemons)
        async with asyncio.timeout(60):
            while True:
                try:
                    pinned = await client.pin(Did.parse(dataset), "SCRATCH", 600)
                    break
                except Changing:
                    await asyncio.sleep(0.1)
        assert pinned.made
        assert pinned.rule_id != ending
        assert (await client.rule(pinned.rule_id)).state == "OK"


KEYS = """
import json, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from dmsp_rucio import keyring
from oic.utils.keyio import KeyBundle, UpdateFailed

keyring.start()
asked, go, answers = threading.Event(), threading.Event(), [200]
document = json.loads(sys.argv[1])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked.set()
        go.wait(20)
        body = json.dumps(document).encode()
        self.send_response(answers[0])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
bundle = KeyBundle(source=f"http://127.0.0.1:{server.server_address[1]}/jwks")
# The first keys are waited for, by all who come.
first = [threading.Thread(target=lambda: seen.append(len(bundle.keys()))) for _ in range(4)]
seen = []
for thread in first:
    thread.start()
asked.wait(20)
go.set()
for thread in first:
    thread.join(20)
print("first", seen)
# They are old, and the issuer takes its time: whoever comes meanwhile has keys.
asked.clear()
go.clear()
bundle.time_out = 0
slow = threading.Thread(target=bundle.keys)
slow.start()
asked.wait(20)
print("meanwhile", len(bundle.keys()), slow.is_alive())
document["keys"].append({**document["keys"][0], "kid": "k2"})
go.set()
slow.join(20)
print("then", len(bundle.keys()))
# The issuer fails: the keys stay.
answers[0] = 500
bundle.time_out = 0
print("without the issuer", len(bundle.keys()), bundle.time_out > time.time())
try:
    KeyBundle(source=bundle.source).keys()
except UpdateFailed:
    print("no keys at all")
"""


def _run_inside(lake: Any, program: str, *arguments: str) -> str:
    """What a program writes that runs with Rucio's environment and configuration."""
    done = subprocess.run(
        [str(lake.env / "bin" / "python"), "-c", program, *arguments],
        env=parts.environment(lake.state / "rucio"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_keys_of_the_issuer_stay_while_they_are_asked_for_again(lake: Any) -> None:
    """Every five minutes the library asks for them, and had none until the issuer answered: it refused new tokens."""
    said = textwrap.dedent(
        """\
        first [1, 1, 1, 1]
        meanwhile 1 True
        then 2
        without the issuer 2 True
        no keys at all
        """
    )
    assert _run_inside(lake, KEYS, json.dumps(lake.issuer.jwks())) == said


def test_the_cache_of_tokens_does_not_grow_for_ever(lake: Any) -> None:
    program = """if True:
        from dmsp_rucio import caching
        from rucio.core.authentication import TOKENREGION
        caching.forget_tokens()
        for turn in range(3):
            for number in range(100):
                TOKENREGION.set(f"{turn} {number}", {})
            print(len(TOKENREGION.backend._cache))
            caching.forget_tokens()
        """
    assert _run_inside(lake, program).split() == ["100", "100", "100"]

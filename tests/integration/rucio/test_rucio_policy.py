"""Who may do what in the box's Rucio, asked of the real server."""

from __future__ import annotations

import configparser
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyterhub_dmsp.box.rucio import config

pytestmark = pytest.mark.root


def refused(answer: httpx.Response) -> str:
    assert answer.status_code in (401, 403), (answer.status_code, answer.text)
    return answer.text


def ask(api: Any, dataset: str) -> httpx.Response:
    scope, name = dataset.split(":")
    body = {"dids": [{"scope": scope, "name": name}], "copies": 1, "rse_expression": "SCRATCH"}
    return api("POST", "/rules/", {**body, "lifetime": 600, "account": api.account}, check=False)


@pytest.fixture(scope="module")
def member(lake: Any) -> Any:
    return lake.user("km3net-user", "km3net")


@pytest.fixture(scope="module")
def outsider(lake: Any) -> Any:
    return lake.user("collider-user", "collider")


@pytest.fixture(scope="module")
def hub(lake: Any) -> Any:
    return lake.login(config.SERVICE_ACCOUNT)


@pytest.fixture(scope="module")
def restricted(lake: Any) -> str:
    lake.put("km3net:policy.ds", {f"policy.{n}": b"k" * 100 for n in range(3)})
    return "km3net:policy.ds"


def test_only_members_replicate_a_restricted_scope(restricted: str, member: Any, outsider: Any) -> None:
    assert "Only members of km3net may use its data." in refused(ask(outsider, restricted))
    assert ask(member, restricted).status_code == 201


def test_a_container_does_not_hide_restricted_data(
    lake: Any, restricted: str, member: Any, outsider: Any
) -> None:
    root = lake.root
    for kind, name in (("DATASET", "mixed.ds"), ("CONTAINER", "mixed.c"), ("CONTAINER", "mixed.cc")):
        root("POST", f"/dids/dmsp/{name}", {"type": kind})
    root("POST", "/dids/dmsp/mixed.ds/dids", {"dids": [{"scope": "km3net", "name": "policy.0"}]})
    root("POST", "/dids/dmsp/mixed.c/dids", {"dids": [{"scope": "dmsp", "name": "mixed.ds"}]})
    root("POST", "/dids/dmsp/mixed.cc/dids", {"dids": [{"scope": "dmsp", "name": "mixed.c"}]})
    for name in ("mixed.ds", "mixed.c", "mixed.cc"):
        assert "km3net" in refused(ask(outsider, f"dmsp:{name}"))
    answer = ask(member, "dmsp:mixed.cc")
    assert answer.status_code == 201, answer.text


def test_restricted_data_cannot_be_put_into_ones_own_collection(
    restricted: str, member: Any, outsider: Any
) -> None:
    for user, expected in ((outsider, False), (member, True)):
        user("POST", f"/dids/user.{user.account}/mine.ds", {"type": "DATASET"})
        body = {"dids": [{"scope": "km3net", "name": "policy.1"}]}
        answer = user.http.post(f"/dids/user.{user.account}/mine.ds/dids", json=body)
        assert (answer.status_code == 201) is expected, answer.text


@pytest.fixture(scope="module")
def hidden(lake: Any, restricted: str) -> str:
    """A dataset in an open scope with a restricted file in it."""
    lake.root("POST", "/dids/dmsp/hidden.ds", {"type": "DATASET"})
    lake.root("POST", "/dids/dmsp/hidden.ds/dids", {"dids": [{"scope": "km3net", "name": "policy.2"}]})
    return "dmsp:hidden.ds"


def inline(account: str) -> dict[str, Any]:
    return {
        "account": account,
        "copies": 1,
        "rse_expression": "SCRATCH",
        "lifetime": 600,
        "grouping": "DATASET",
    }


def rules_of(api: Any, scope: str, name: str) -> list[Any]:
    return list(api("GET", f"/dids/{scope}/{name}/rules"))


@pytest.mark.parametrize("way", ["file", "hidden"])
@pytest.mark.parametrize("with_rule", [True, False])
def test_a_new_collection_brings_no_restricted_data(
    hidden: str, member: Any, outsider: Any, way: str, with_rule: bool
) -> None:
    """``add_did`` with content, with and without a rule in it: Rucio tells its policy of neither."""
    name = f"new.{way}.{with_rule}"
    content = ("km3net", "policy.0") if way == "file" else tuple(hidden.split(":"))
    for user, expected in ((outsider, False), (member, True)):
        scope = f"user.{user.account}"
        body: dict[str, Any] = {"type": "DATASET" if way == "file" else "CONTAINER"}
        body["dids"] = [{"scope": content[0], "name": content[1]}]
        if with_rule:
            body["rules"] = [inline(user.account)]
        answer = user("POST", f"/dids/{scope}/{name}", body, check=False)
        if expected:
            assert answer.status_code == 201, answer.text
            assert len(rules_of(user, scope, name)) == with_rule
        else:
            assert "Only members of km3net may use its data." in refused(answer)
            assert user("GET", f"/dids/{scope}/{name}", check=False).status_code == 404


def test_many_new_collections_bring_no_restricted_data(hidden: str, member: Any, outsider: Any) -> None:
    for kind, (scope, name) in (("DATASET", ("km3net", "policy.0")), ("CONTAINER", hidden.split(":"))):
        for user, expected in ((outsider, False), (member, True)):
            did = {"scope": f"user.{user.account}", "name": f"bulk.{kind}", "type": kind}
            did["dids"] = [{"scope": scope, "name": name}]
            answer = user("POST", "/dids", [did], check=False)
            assert (answer.status_code == 201) is expected, answer.text
            if not expected:
                assert "Only members of km3net may use its data." in refused(answer)


def test_an_outsider_makes_a_collection_with_a_rule_of_open_data(lake: Any, outsider: Any) -> None:
    """The positive control: it is the data that counts, not the way."""
    lake.put("dmsp:open.ds", {"open.1": b"o" * 100})
    scope = f"user.{outsider.account}"
    body = {
        "type": "DATASET",
        "dids": [{"scope": "dmsp", "name": "open.1"}],
        "rules": [inline(outsider.account)],
    }
    outsider("POST", f"/dids/{scope}/new.open", body)
    (rule,) = rules_of(outsider, scope, "new.open")
    outsider.wait(rule["id"])
    # As `rucio upload` does: the rule first, the files later.
    outsider("POST", f"/dids/{scope}/new.empty", {"type": "DATASET", "rules": [inline(outsider.account)]})


def test_a_rule_does_not_follow_restricted_data(lake: Any, hidden: str, member: Any, outsider: Any) -> None:
    """A rule on one's own container copies what is attached to it later, however deep it lies."""
    scope, name = hidden.split(":")
    for user, expected in ((outsider, False), (member, True)):
        own = f"user.{user.account}"
        user("POST", f"/dids/{own}/follow.c", {"type": "CONTAINER", "rules": [inline(user.account)]})
        (rule,) = rules_of(user, own, "follow.c")
        children = {"dids": [{"scope": scope, "name": name}]}
        one = user("POST", f"/dids/{own}/follow.c/dids", children, check=False)
        many = user("POST", "/dids/attachments", [{"scope": own, "name": "follow.c", **children}], check=False)
        if expected:
            assert one.status_code == 201, one.text
            lake.until(lambda: user.state(rule["id"])["locks_ok_cnt"] == 1, 60, "the rule to follow")  # noqa: B023
        else:
            for answer in (one, many):
                assert "Only members of km3net may use its data." in refused(answer)


def test_who_leaves_an_experiment_may_give_back_but_not_extend(lake: Any, hub: Any, restricted: str) -> None:
    leaver = lake.user("leaver", "km3net")
    rule = leaver.rule(restricted)
    hub("DELETE", "/accounts/leaver/attr/experiment-km3net")
    refused(leaver("PUT", f"/rules/{rule}", {"options": {"lifetime": 9999}}, check=False))
    leaver("PUT", f"/rules/{rule}", {"options": {"lifetime": 0, "purge_replicas": True}})


def test_owner_extends_boosts_and_deletes(lake: Any, member: Any, outsider: Any) -> None:
    lake.put("dmsp:own.ds", {"own.1": b"o"})
    rule = member.rule("dmsp:own.ds")
    member.wait(rule)
    before = member.state(rule)["expires_at"]
    refused(outsider("PUT", f"/rules/{rule}", {"options": {"lifetime": 99999}}, check=False))
    refused(outsider("PUT", f"/rules/{rule}", {"options": {"boost_rule": True}}, check=False))
    refused(outsider("DELETE", f"/rules/{rule}", {"purge_replicas": True}, check=False))
    assert member.state(rule)["expires_at"] == before
    member("PUT", f"/rules/{rule}", {"options": {"lifetime": 99999}})
    assert member.state(rule)["expires_at"] != before
    member("PUT", f"/rules/{rule}", {"options": {"boost_rule": True}})
    for option in ({"account": "root"}, {"locked": True}, {"source_replica_expression": "SITE-NORTH"}):
        refused(member("PUT", f"/rules/{rule}", {"options": option}, check=False))
    member("DELETE", f"/rules/{rule}", {"purge_replicas": True})


def test_the_hub_manages_users_and_nobody_else(lake: Any, hub: Any, member: Any) -> None:
    identity = {"identity": "SUB=x, ISS=y", "authtype": "OIDC", "email": "a@localhost"}
    key = {"key": "experiment-km3net", "value": "true"}
    wrong = [
        ("POST", "/accounts/root/identities", identity),
        ("POST", f"/accounts/{config.SERVICE_ACCOUNT}/identities", identity),
        (
            "POST",
            "/accounts/km3net-user/identities",
            {**identity, "authtype": "USERPASS", "password": "x" * 20},
        ),
        ("POST", "/accounts/km3net-user/attr/admin", {"key": "admin", "value": "true"}),
        ("POST", "/accounts/km3net-user/attr/provisioner", {"key": "provisioner", "value": "true"}),
        ("POST", f"/accounts/{config.SERVICE_ACCOUNT}/attr/experiment-km3net", key),
        ("POST", "/accounts/newadmin", {"type": "SERVICE", "email": "a@localhost"}),
        ("POST", "/accounts/km3net-user/scopes/km3net2", None),
        ("POST", "/accountlimits/local/root/SCRATCH", {"bytes": 1}),
        ("POST", "/rses/OTHER", {}),
    ]
    for method, path, body in wrong:
        refused(hub(method, path, body, check=False))
    for method, path, body in [*wrong, ("POST", "/accounts/collider-user/attr/experiment-km3net", key)]:
        refused(member(method, path, body, check=False))


def test_names_that_leave_their_directory_are_refused(member: Any) -> None:
    for name in ("a/../../x", "../x", "x/.."):
        answer = member.http.post(
            "/dids", json=[{"scope": "user.km3net-user", "name": name, "type": "DATASET"}]
        )
        assert answer.status_code == 401, (name, answer.text)
        answer = member.http.post(
            f"/dids/user.km3net-user/{name.replace('/', '%2F')}", json={"type": "DATASET"}
        )
        assert answer.status_code in (400, 404), (name, answer.text)
    for name in ("a/b/c.root", "a..b", "x.y"):
        answer = member.http.post(
            "/dids", json=[{"scope": "user.km3net-user", "name": name, "type": "DATASET"}]
        )
        assert answer.status_code == 201, (name, answer.text)


def test_no_default_identity_and_no_secret_in_sight(lake: Any) -> None:
    headers = {"X-Rucio-Account": "root", "X-Rucio-Username": "ddmlab", "X-Rucio-Password": "secret"}
    assert httpx.get(f"{lake.url}/auth/userpass", headers=headers).status_code == 401
    assert lake.sql("select count(*) from identities where identity_type <> 'USERPASS'") != ""
    names = lake.sql("select identity from identities where identity_type='USERPASS' order by 1")
    assert names == "[('dmsp-hub',), ('root',)]"
    assert stat.S_IMODE((lake.state / "rucio" / "rucio.cfg").stat().st_mode) == 0o600
    secret = lake.secret("database")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        assert secret.encode() not in seen, process


def test_bootstrap_again_changes_nothing_and_takes_a_new_password(lake: Any) -> None:
    count = (
        "select (select count(*) from rses), (select count(*) from rse_protocols), (select count(*) from distances),"
        " (select count(*) from scopes), (select count(*) from accounts), (select count(*) from identities)"
    )
    before = lake.sql(count)
    assert lake.bootstrap() == 0
    assert lake.sql(count) == before
    (lake.state / "secrets" / "root").write_text(config.generate_password())
    assert lake.bootstrap() == 0
    assert lake.root("GET", "/accounts/root")["account"] == "root"


@pytest.mark.parametrize("name", ["alg-none", "audience", "expired", "foreign issuer"])
def test_bad_tokens_are_refused(lake: Any, member: Any, name: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "alg-none": {},
        "audience": {"aud": "other"},
        "expired": {"exp": int(time.time()) - 600, "iat": int(time.time()) - 900},
        "foreign issuer": {"iss": "http://127.0.0.1:1/"},
    }
    token = lake.issuer.token("km3net-user", **changes[name])
    if name == "alg-none":
        body = token.split(".")[1]
        token = f"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}."
    answer = httpx.get(f"{lake.url}/accounts/whoami", headers={"X-Rucio-Auth-Token": token})
    assert answer.status_code == 401, answer.text


def test_rucio_command_in_a_session(lake: Any, member: Any, tmp_path: Path) -> None:
    """The stock command with our rucio.cfg and a bearer token file: whoami, and a download from the mount."""
    dids = lake.put("km3net:cli.ds", {f"cli.{n}": bytes([n]) * 1000 for n in range(3)})
    member.wait(member.rule("km3net:cli.ds"))
    mount = Path(lake.plan.mount)
    mount.parent.mkdir(exist_ok=True)
    if not mount.exists():
        mount.symlink_to(lake.state / "storage" / "SCRATCH" / "lake")
    (tmp_path / "rucio.cfg").write_text(
        config.client_config(rucio_url=lake.url, auth_url=lake.url, account="km3net-user")
    )
    token = tmp_path / "bt"
    token.write_text(lake.issuer.token("km3net-user"))
    token.chmod(0o600)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "RUCIO_CONFIG": str(tmp_path / "rucio.cfg"),
        "BEARER_TOKEN_FILE": str(token),
        "SITE_NAME": lake.plan.site,
    }

    def rucio(*arguments: str) -> str:
        ran = subprocess.run(
            [str(Path(sys.executable).parent / "rucio"), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    assert "km3net-user" in rucio("whoami")
    said = rucio("download", "km3net:cli.ds", "--dir", str(tmp_path / "out"))
    print(said)
    for number, one in enumerate(dids):
        name = one.split(":")[1]
        assert (tmp_path / "out" / "cli.ds" / name).read_bytes() == bytes([number]) * 1000
    found = member("POST", "/replicas/list", {"dids": [{"scope": "km3net", "name": "cli.1"}]})
    assert list(found[0]["rses"]["SCRATCH"]) == [
        f"file://session{mount}/"
        + str(lake.place("SCRATCH", "km3net:cli.1").relative_to(lake.state / "storage" / "SCRATCH" / "lake"))
    ]
    parser = configparser.ConfigParser()
    parser.read(tmp_path / "rucio.cfg")
    assert parser["client"]["auth_type"] == "oidc"
    assert token.stat().st_mode & 0o77 == 0

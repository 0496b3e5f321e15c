# ruff: noqa: E501 - a table is read by its columns
"""Rucio, with the attacker's own bearer token from their session."""

from __future__ import annotations

from attacks.model import Try

_OWNER = "only its owner"
_ADMIN = "only administrators"
_SCOPE = "only the owner of a scope"
_POLICY = "the box's permission policy"


def _ask(name: str, where: str, what: str, call: str, control: str, why: str) -> Try:
    return Try(name, where, what, why, control, f"answer = rucio(t, {call})\nreturn good(answer) and answer")


def _undone(name: str, where: str, what: str, call: str, undo: str, why: str = _ADMIN) -> Try:
    """One that root takes back at once."""
    return Try(name, where, what, why, "root",
               f"answer = rucio(t, {call})\nif good(answer): rucio(t, {undo})\nreturn good(answer) and answer")  # fmt: skip


_RULE = (
    "{'dids': [{'scope': %s, 'name': %s}], 'copies': 1, 'rse_expression': %s, 'lifetime': 600, 'account': %s}"
)
_FILE = "{'scope': t['own_scope'], 'name': t['fresh'] + %r, 'bytes': 9, 'adler32': '0a0a0a0a'}"

TRIES = [
    Try("account-switch", "kernel", "act as the other's account with `X-Rucio-Account`", "the token names the account",
        "victim", """
        answer = rucio(t, "GET", "/accounts/whoami", X_Rucio_Account=t["victim"])
        return answer[0] < 400 and t["victim"] in answer[1]"""),
    Try("forged-token", "terminal", "a token without a signature in the other's name", "signatures are checked", "victim", """
        import base64
        head, body, tail = t["rucio_token"].split(".")
        if t["me"] != t["victim"]:
            claims = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": t["victim_sub"]}
            pack = lambda data: base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")
            head, body, tail = pack({"alg": "none", "typ": "JWT"}), pack(claims), ""
        answer = call("GET", t["rucio"] + "/accounts/whoami", X_Rucio_Auth_Token=".".join((head, body, tail)))
        return answer[0] < 400 and t["victim"] in answer[1]"""),
    Try("rucio-root", "terminal", "log in as Rucio's root with its usual password", "a random password", "root", """
        password = t.get("root_password", "secret")
        return good(call("GET", t["rucio"] + "/auth/userpass", X_Rucio_Account="root", X_Rucio_Password=password,
                         X_Rucio_Username="root" if password != "secret" else "ddmlab"))"""),
    Try("rucio-certificate", "kernel", "log in as Rucio's root by headers of a TLS proxy (`SSL-Client-S-DN`, `Remote-User`)",
        "no such identity, and headers do not count", "root", """
        if "root_password" in t: return good(rucio(t, "GET", "/accounts/root"))
        for path in ("x509", "x509_proxy", "gss", "ssh", "saml"):
            if good(call("GET", t["rucio"] + "/auth/" + path, X_Rucio_Account="root", SSL_Client_S_DN="/CN=root",
                         SSL_CLIENT_S_DN="/CN=root", SSL_CLIENT_VERIFY="SUCCESS", Remote_User="root",
                         X_Rucio_SSH_Signature="eA==")): return path"""),
    _ask("rule-change", "kernel", "shorten the other's rule, so that its data goes",
         "'PUT', '/rules/' + t['rule'], {'options': {'lifetime': 3600}}", "victim", _OWNER),
    _ask("rule-delete", "terminal", "delete the other's rule",
         "'DELETE', '/rules/' + t['spare_rule'], {'purge_replicas': True}", "victim", _OWNER),
    _ask("rule-approve", "kernel", "lock, move or reassign the other's rule",
         "'PUT', '/rules/' + t['rule'], {'options': {'locked': False}}", "root", _ADMIN),
    _ask("rule-for-other", "terminal", "make a rule in the other's name (their quota)",
         "'POST', '/rules/', " + _RULE % ("'dmsp'", "t['open']", "'SCRATCH|SCRATCH'", "t['victim']"), "victim", _OWNER),
    _ask("rule-restricted", "kernel", "replicate another experiment's data",
         "'POST', '/rules/', " + _RULE % ("'km3net'", "t['dataset']", "'SCRATCH|SCRATCH'", "t['me']"), "victim", _POLICY),
    _ask("rule-private", "terminal", "replicate data of the other's own scope",
         "'POST', '/rules/', " + _RULE % ("t['victim_scope']", "t['private']", "'SCRATCH|SCRATCH'", "t['me']"), "victim", _POLICY),
    _ask("rule-on-site", "kernel", "a rule on a site's storage: with purge it could delete the original",
         "'POST', '/rules/', " + _RULE % ("'dmsp'", "t['open']", "'SITE-NORTH'", "t['me']"), "root", "no quota there"),
    _ask("did-foreign-scope", "terminal", "make a dataset in the other's scope",
         "'POST', '/dids/' + t['victim_scope'] + '/' + t['fresh'], {'type': 'DATASET'}", "victim", _SCOPE),
    _ask("did-metadata", "kernel", "change metadata (lifetime) of the other's dataset",
         "'POST', '/dids/' + t['victim_scope'] + '/' + t['private'] + '/meta/project', {'value': 'x'}", "victim", _SCOPE),
    _ask("did-metadata-delete", "terminal", "delete metadata of the other's dataset",
         "'DELETE', '/dids/' + t['victim_scope'] + '/' + t['private'] + '/meta?key=mark'", "victim", _POLICY),
    _ask("did-detach", "kernel", "take files out of the other's dataset",
         "'DELETE', '/dids/' + t['victim_scope'] + '/' + t['private'] + '/dids',"
         " {'dids': [{'scope': t['victim_scope'], 'name': t['private_name']}]}", "victim", _SCOPE),
    _ask("did-close", "terminal", "close the other's dataset",
         "'PUT', '/dids/' + t['victim_scope'] + '/' + t['private'] + '/status', {'open': False}", "victim", _SCOPE),
    _ask("did-sample", "kernel", "copy restricted files into an own dataset by sampling",
         "'POST', '/dids/km3net/' + t['dataset'] + '/' + t['own_scope'] + '/' + t['fresh'] + '.sample/1/sample'",
         "victim", _POLICY),
    Try("did-attach-restricted", "terminal", "attach restricted files to an own dataset", _POLICY, "victim", """
        path = "/dids/" + t["own_scope"] + "/" + t["fresh"] + ".attach"
        assert good(rucio(t, "POST", path, {"type": "CONTAINER"}))
        return good(rucio(t, "POST", path + "/dids", {"dids": [{"scope": "km3net", "name": t["dataset"]}]}))"""),
    Try("register-by-attach", "kernel", "register replicas by attaching with `rse`", _POLICY, "root", f"""
        path = "/dids/" + t["own_scope"] + "/" + t["fresh"] + ".reg"
        assert good(rucio(t, "POST", path, {{"type": "DATASET"}}))
        return good(rucio(t, "POST", path + "/dids", {{"rse": "SITE-NORTH", "dids": [{_FILE % ".1"}]}}))"""),
    Try("register-by-attachments", "terminal", "the same for many at once", _POLICY, "root", f"""
        name = t["fresh"] + ".regs"
        assert good(rucio(t, "POST", "/dids/" + t["own_scope"] + "/" + name, {{"type": "DATASET"}}))
        body = [{{"scope": t["own_scope"], "name": name, "rse": "SITE-NORTH", "dids": [{_FILE % ".2"}]}}]
        return good(rucio(t, "POST", "/dids/attachments", body))"""),
    _ask("register-by-new", "kernel", "the same with a new dataset",
         "'POST', '/dids/' + t['own_scope'] + '/' + t['fresh'] + '.new', {'type': 'DATASET', 'rse': 'SITE-NORTH',"
         " 'dids': [" + _FILE % ".3" + "]}", "root", _POLICY),
    _ask("register-by-bulk", "terminal", "the same with many new datasets and the RSE's internal number",
         "'POST', '/dids', [{'scope': t['own_scope'], 'name': t['fresh'] + '.bulk', 'type': 'DATASET',"
         " 'rse_id': json.loads(rucio(t, 'GET', '/rses/SITE-NORTH')[1])['id'], 'dids': [" + _FILE % ".4" + "]}]", "root", _POLICY),
    _ask("register", "kernel", "register replicas", "'POST', '/replicas', {'rse': 'SITE-NORTH', 'files': [" + _FILE % ".5" + "]}",
         "root", _POLICY),
    _ask("declare-bad", "terminal", "declare other people's replicas bad",
         "'POST', '/replicas/bad/dids', {'rse': 'SITE-NORTH', 'dids': [], 'reason': 'x'}"
         " if t['me'] == 'root' else {'rse': 'SITE-NORTH', 'reason': 'x',"
         " 'dids': [{'scope': 'km3net', 'name': t['dataset_file']}]}", "root", _ADMIN),
    _undone("rse-attribute", "kernel", "change the settings of a storage element",
            "'POST', '/rses/SCRATCH/attr/probe', {'value': 'x'}", "'DELETE', '/rses/SCRATCH/attr/probe'"),
    _ask("quota", "terminal", "give oneself quota",
         "'POST', '/accountlimits/local/' + t['quota_for'] + '/' + t['quota_at'], {'bytes': -1}", "root", _ADMIN),
    _undone("identity", "kernel", "add an own identity to another account",
            "'POST', '/accounts/' + t['victim'] + '/identities',"
            " {'identity': t['probe_identity'], 'authtype': 'OIDC', 'email': 'a@localhost'}",
            "'DELETE', '/accounts/' + t['victim'] + '/identities',"
            " {'identity': t['probe_identity'], 'authtype': 'OIDC'}"),
    _undone("membership", "terminal", "join an experiment in Rucio",
            "'POST', '/accounts/' + t['attacker'] + '/attr/experiment-probe', {'key': 'experiment-probe', 'value': 'true'}",
            "'DELETE', '/accounts/' + t['attacker'] + '/attr/experiment-probe'"),
    _ask("rucio-settings", "kernel", "read Rucio's configuration", "'GET', '/config'", "root", _ADMIN),
    _ask("rucio-export", "terminal", "export all storage elements", "'GET', '/export/'", "root", _ADMIN),
    _ask("rucio-accounts", "kernel", "make a service account",
         "'PUT', '/accounts/' + t['victim'], {'status': 'ACTIVE'}", "root", _ADMIN),
]  # fmt: skip

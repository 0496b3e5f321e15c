# ruff: noqa: E501 - a table is read by its columns
"""The hub's API from inside a session, with a token that carries all of the attacker's own rights."""

from __future__ import annotations

from attacks.model import Try

_SCOPES = "a user's token reaches that user alone"


def _ask(
    name: str, what: str, call: str, control: str = "victim", why: str = _SCOPES, where: str = "kernel"
) -> Try:
    return Try(name, where, what, why, control, f"answer = hub(t, {call})\nreturn good(answer) and answer")


TRIES = [
    _ask("hub-user", "the other's user model", "'GET', '/users/' + t['victim']"),
    Try("hub-users", "terminal", "find the other in the list of users", _SCOPES, "admin",
        "answer = hub(t, 'GET', '/users')\n"
        "return good(answer) and [u for u in json.loads(answer[1]) if u['name'] == t['victim']]"),
    _ask("hub-tokens", "list the other's tokens", "'GET', '/users/' + t['victim'] + '/tokens'"),
    _ask("hub-token", "make a token for the other", "'POST', '/users/' + t['victim'] + '/tokens', {'note': 'attack'}"),
    Try("hub-start", "terminal", "start the other's server", _SCOPES, "victim",
        "return hub(t, 'POST', '/users/' + t['victim'] + '/server')[0] not in (401, 403, 404)"),
    _ask("hub-activity", "report activity for the other's server (keeps it alive)",
         "'POST', '/users/' + t['victim'] + '/activity', {'last_activity': '2020-01-01T00:00:00Z'}"),
    _ask("hub-admin", "become an administrator", "'PATCH', '/users/' + t['me'], {'admin': True}", "admin"),
    _ask("hub-group", "list the groups", "'GET', '/groups'", "admin"),
    Try("hub-auth-state", "kernel", "tokens kept for a login (`auth_state`)", "for administrators only", "admin",
        "return json.loads(hub(t, 'GET', '/users/' + t['victim'])[1]).get('auth_state')"),
    _ask("hub-proxy", "the routes of the proxy", "'GET', '/proxy'", "admin", where="terminal"),
    Try("hub-metrics", "terminal", "the hub's metrics", "for administrators only", "admin",
        "return good(call('GET', t['hub'].removesuffix('/api') + '/metrics', Authorization='token ' + t['hub_token']))"),
    Try("hub-foreign-scope", "kernel", "a token with rights on the other's server", "rights beyond one's own are refused",
        "victim", """
        wanted = ["access:servers!server=" + t["victim"] + "/"]
        status, text = hub(t, "POST", "/users/" + t["me"] + "/tokens", {"scopes": wanted})
        return status < 300 and wanted[0] in json.loads(text)["scopes"]"""),
    Try("token-endpoint", "kernel", "an access token of the other from the token endpoint",
        "gives a server its owner's token, nobody else's", "victim", """
        wanted = ["custom:dmsp:token", "access:servers!server=" + t["victim"] + "/"]
        status, text = hub(t, "POST", "/users/" + t["me"] + "/tokens", {"scopes": wanted})
        if status >= 300: return False
        token = "token " + json.loads(text)["token"]
        return good(call("GET", t["hub"] + "/dmsp/token?audience=rucio", Authorization=token))"""),
    Try("hub-no-token", "terminal", "be taken for the other by `X-Forwarded-User`, `Remote-User` and the like",
        "no header names a user", "victim", """
        names = ["X-Forwarded-User", "X-Remote-User", "Remote-User", "X-Forwarded-Preferred-Username"]
        more = {name: t["victim"] for name in names} | ({"Authorization": "token " + t["hub_token"]} if t["me"] == t["victim"] else {})
        return good(call("GET", t["hub"] + "/user", **more))"""),
    Try("hub-forged-token", "terminal", "guess the token of a service, or none", "tokens are random", "admin", """
        token = t["hub_token"] if t["me"] != t["attacker"] else "0" * 32
        return good(call("GET", t["hub"] + "/users", Authorization="token " + token))"""),
]  # fmt: skip

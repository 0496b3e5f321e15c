"""An OIDC issuer that can be any of those that the presets know, as a process of its own.

``python oddissuer.py PORT`` serves discovery, authorization (whoever it was told of is logged in at once), tokens (code
with PKCE, refresh, exchange), userinfo, revocation and keys. ``POST /control`` says how it is to behave and who its
user is, ``GET /control`` what it was asked. Tokens are real: signed, or random where it is to be opaque.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import unquote, urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from tornado import web

CLIENT, SECRET = "hub", "hush/+ %"
TOLERANCE = 15
"""Seconds for which userinfo takes a token that is over: short ones must survive a login on a slow machine."""
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
DEFAULTS: dict[str, Any] = {
    "user": {"sub": "1", "preferred_username": "ada"},
    "userinfo": {},  # further claims there
    "token": {},  # further claims in JWTs
    "opaque": False,
    "rotating": True,
    "lifetime": 3600,
    "id_token_at_refresh": True,
    "down": False,  # 503 to everything but /control
    "refuse": {},  # by what is asked: [status, error]
    "slow": 0.0,  # seconds that a refresh takes
    "grace": False,  # whether a refresh whose answer was lost may be asked again
}


class State:
    """All that the issuer knows; forgotten when it ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
        self.set = json.loads(json.dumps(DEFAULTS))
        self.counts: Counter[str] = Counter()
        self.asked: list[dict[str, str]] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.access: dict[str, dict[str, Any]] = {}
        self.refresh: dict[str, dict[str, Any]] = {}
        self.successors: dict[str, str] = {}
        self.revoked: list[str] = []
        self.given: list[str] = []

    def mint(self, who: dict[str, Any], audience: str, scope: str) -> dict[str, Any]:
        now = int(time.time())
        life = self.set["lifetime"]
        said = {"iss": self.url, "aud": audience, "iat": now, "exp": now + life, "scope": scope}
        said |= {"sub": who["sub"], "jti": secrets.token_hex(8), **self.set["token"]}
        token = secrets.token_urlsafe(24) if self.set["opaque"] else self.sign(said)
        self.access[token] = said | {"who": who}
        return {"access_token": token, "token_type": "Bearer", "expires_in": life, "scope": scope}

    def sign(self, said: dict[str, Any]) -> str:
        return str(jwt.encode({"alg": "RS256", "kid": "1"}, said, self.key))

    def id_token(self, who: dict[str, Any]) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 60, "sub": who["sub"]}
        return self.sign(said)

    def new_refresh(self, who: dict[str, Any]) -> str:
        token = secrets.token_urlsafe(24)
        self.refresh[token] = who
        return token


class Base(web.RequestHandler):
    state: State

    def initialize(self, state: State) -> None:
        self.state = state

    def check_xsrf_cookie(self) -> None:
        """Programs ask here."""

    def refused(self, what: str) -> bool:
        """Count the question; answer it with the fault that was ordered, if any."""
        self.state.counts[what] += 1
        status, error = self.state.set["refuse"].get(what, (0, ""))
        if self.state.set["down"]:
            status, error = 503, "temporarily_unavailable"
        if status:
            self.answer({"error": error, "error_description": f"refused: {error}"}, status)
        return bool(status)

    def answer(self, body: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body))

    def is_client(self) -> bool:
        kind, _, pair = self.request.headers.get("Authorization", "").partition(" ")
        name, _, secret = base64.b64decode(pair).decode().partition(":") if kind == "Basic" else ("", "", "")
        return (name, secret) == (CLIENT, SECRET) or (unquote(name), unquote(secret)) == (CLIENT, SECRET)


class Discovery(Base):
    def get(self) -> None:
        if not self.refused("discovery"):
            names = ("authorization", "token", "userinfo", "revocation")
            found = {f"{name}_endpoint": f"{self.state.url}/{name}" for name in names}
            self.answer({"issuer": self.state.url, "jwks_uri": f"{self.state.url}/jwks", **found})


class Authorization(Base):
    def get(self) -> None:
        if self.refused("authorization"):
            return
        asked = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        assert asked["client_id"] == CLIENT, asked
        assert asked["code_challenge_method"] == "S256", asked
        code = secrets.token_urlsafe(16)
        self.state.codes[code] = asked
        self.state.given.append(code)
        self.state.asked.append(asked)
        self.redirect(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")


class Token(Base):
    async def post(self) -> None:
        asked = {name: self.get_body_argument(name) for name in self.request.body_arguments}
        kind = {"authorization_code": "code", "refresh_token": "refresh", EXCHANGE: "exchange"}[
            asked["grant_type"]
        ]
        if self.refused(kind):
            return
        if not self.is_client():
            self.answer({"error": "invalid_client"}, 401)
            return
        self.state.asked.append({k: v for k, v in asked.items() if k in ("grant_type", "audience", "scope")})
        body = await getattr(self, f"_{kind}")(asked)
        self.answer(body or {"error": "invalid_grant"}, 200 if body else 400)

    async def _code(self, asked: dict[str, str]) -> dict[str, Any] | None:
        known = self.state.codes.pop(asked["code"], None)
        seen = base64.urlsafe_b64encode(hashlib.sha256(asked["code_verifier"].encode()).digest()).rstrip(b"=")
        if known is None or seen.decode() != known["code_challenge"]:
            return None
        who = dict(self.state.set["user"])
        made = self.state.mint(who, CLIENT, known["scope"])
        return made | {"refresh_token": self.state.new_refresh(who), "id_token": self.state.id_token(who)}

    async def _refresh(self, asked: dict[str, str]) -> dict[str, Any] | None:
        old, state = asked["refresh_token"], self.state
        token = state.successors.get(old, "") if state.set["grace"] else ""
        if old not in state.refresh and token not in state.refresh:
            state.counts["refused"] += 1
            return None
        who = state.refresh.get(old) or state.refresh[token]
        more: dict[str, Any] = {}
        if old not in state.refresh:
            more["refresh_token"] = token
        elif state.set["rotating"]:
            del state.refresh[old]
            more["refresh_token"] = state.successors[old] = state.new_refresh(who)
        if state.set["id_token_at_refresh"]:
            more["id_token"] = state.id_token(who)
        await asyncio.sleep(state.set["slow"])
        return state.mint(who, CLIENT, "openid profile") | more

    async def _exchange(self, asked: dict[str, str]) -> dict[str, Any] | None:
        known = self.state.access.get(asked["subject_token"], {})
        if known.get("exp", 0) <= time.time():
            self.answer({"error": "invalid_request"}, 400)
            raise web.Finish
        return self.state.mint(known["who"], asked["audience"], asked.get("scope", "all"))


class Userinfo(Base):
    def get(self) -> None:
        token = self.request.headers.get("Authorization", "").partition(" ")[2]
        if self.refused("userinfo"):
            return
        known = self.state.access.get(token, {})
        if known.get("exp", 0) + TOLERANCE <= time.time():
            self.answer({"error": "invalid_token"}, 401)
        else:
            self.answer(known["who"] | self.state.set["userinfo"])


class Revocation(Base):
    def post(self) -> None:
        if self.refused("revocation"):
            return
        if not self.is_client():
            self.answer({"error": "invalid_client"}, 401)
            return
        self.state.revoked.append(self.get_body_argument("token"))
        self.state.refresh.pop(self.get_body_argument("token"), None)
        self.finish()


class Control(Base):
    def get(self) -> None:
        state = self.state
        told = {"counts": state.counts, "asked": state.asked, "revoked": state.revoked, "codes": state.given}
        self.answer({**told, "rotating": state.set["rotating"]})

    def post(self) -> None:
        """Set what is named; ``{"all": true}`` forgets orders and counts first."""
        order = json.loads(self.request.body)
        if order.pop("all", False):
            self.state.set = json.loads(json.dumps(DEFAULTS))
            self.state.counts.clear()
            self.state.asked.clear()
            self.state.revoked.clear()
        if order.pop("withdraw", False):
            self.state.access.clear()
        assert set(order) <= set(DEFAULTS), order
        self.state.set |= order
        self.answer(self.state.set)


class Jwks(Base):
    def get(self) -> None:
        self.answer({"keys": [self.state.key.as_dict(private=False)]})


async def serve(port: int) -> None:
    names = (Discovery, Authorization, Token, Userinfo, Revocation, Control, Jwks)
    paths = {Discovery: ".well-known/openid-configuration"}
    state = State(f"http://127.0.0.1:{port}")
    routes = [(f"/{paths.get(one, one.__name__.lower())}", one, {"state": state}) for one in names]
    web.Application(routes, log_function=lambda _: None).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

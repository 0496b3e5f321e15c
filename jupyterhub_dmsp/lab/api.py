"""The REST interface without its transport: one function an operation, JSON in, status and JSON out.

Served twice: to browsers with Jupyter's login (:mod:`handlers`), to the user's own kernels on a socket
(:mod:`socket`). ``openapi.yaml`` describes it; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyterhub_dmsp import __version__
from jupyterhub_dmsp.lab.errors import BadRequest, fault_of
from jupyterhub_dmsp.lab.records import MOVING, Attachment
from jupyterhub_dmsp.lab.service import Service
from jupyterhub_dmsp.lab.snippets import LANGUAGES, snippets, suggest, valid
from jupyterhub_dmsp.lake.did import Did

Answer = tuple[int, Any]
_SETTLE = 0.3


@dataclass(frozen=True, slots=True)
class Call:
    """One request: parameters of the path, of the query, and the JSON body."""

    service: Service
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        """A text of the body; raises :class:`BadRequest`."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (not value and default is None):
            raise BadRequest(f"`{name}` must be a text.")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number of the body; raises :class:`BadRequest`."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadRequest(f"`{name}` must be a whole number.")
        return value

    def number(self, name: str, default: int) -> int:
        """A whole number of the query; raises :class:`BadRequest`."""
        value = self.query.get(name, "")
        if not value:
            return default
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise BadRequest(f"`{name}` must be a whole number.")
        return int(value)

    def flag(self, name: str) -> bool:
        """A yes or no of the query."""
        return self.query.get(name, "").lower() in {"1", "true", "yes"}

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of several words of the query, the first by default; raises :class:`BadRequest`."""
        value = self.query.get(name) or choices[0]
        if value not in choices:
            raise BadRequest(f"`{name}` must be one of {', '.join(choices)}.")
        return value


Function = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """An operation: method, path template as in OpenAPI, and whether kernels may use it too."""

    method: str
    path: str
    function: Function
    kernel: bool = True


async def status(call: Call) -> Answer:
    """GET status"""
    service, lake = call.service, call.service.session.lake
    fault = await service.lake_fault()
    health = await service.mount.health()
    expires, token_fault = await service.token_state()
    counters = service.client.counters
    return 200, {
        "version": __version__,
        "account": service.session.account,
        "lake": {
            "name": lake.name,
            "mode": lake.mode,
            "ok": fault is None,
            "error": fault.as_dict() if fault else None,
            "scratch_rse": lake.scratch_rse,
            "traffic": {"calls": counters.calls, "bytes": counters.sent + counters.received},
        },
        "mount": {
            "path": health.path,
            "state": health.state,
            "free_bytes": health.free_bytes,
            "total_bytes": health.total_bytes,
        },
        "token": {"expires_at": expires, "error": token_fault.as_dict() if token_fault else None},
        "rule_lifetime": lake.rule_lifetime,
        "epoch": service.attachments.epoch,
    }


async def children(call: Call) -> Answer:
    """GET children"""
    page = await call.service.index.page(
        call.query.get("parent", ""),
        offset=call.number("offset", 0),
        limit=call.number("limit", 200),
        sort=call.choice("sort", ("name", "bytes", "length", "created")),
        descending=call.choice("order", ("asc", "desc")) == "desc",
        pattern=call.query.get("pattern", "")[:250],
        refresh=call.flag("refresh"),
    )
    known = await call.service.availability(page.rows)
    error = fault_of(page.error).as_dict() if page.error is not None else None
    rows = [
        {
            "kind": row.kind,
            "scope": row.scope,
            "name": row.name,
            "bytes": row.bytes,
            "length": row.length,
            "availability": state,
            "created": row.created,
        }
        for row, state in zip(page.rows, known, strict=True)
    ]
    return 200, {
        "rows": rows,
        "total": page.total,
        "complete": page.complete,
        "snapshot": page.snapshot,
        "error": error,
    }


async def did(call: Call) -> Answer:
    """GET did"""
    which = Did.parse(call.query.get("did", ""))
    client = call.service.client
    info = await client.did(which)
    metadata = await client.metadata(which)
    rules = await client.rules_of(which)
    parents = await client.parents(which)
    if info.kind == "file":
        states = (await client.file_replicas([which]))[0].get("states", {})
        replicas = [
            {"rse": rse, "state": state, "available_files": int(state == "AVAILABLE"), "total_files": 1}
            for rse, state in sorted(states.items())
        ]
    else:
        replicas = [
            {"rse": r.rse, "state": r.state, "available_files": r.available_length, "total_files": r.length}
            for r in await client.dataset_replicas(which)
        ]
    return 200, {
        "scope": which.scope,
        "name": which.name,
        "kind": info.kind,
        "bytes": info.bytes,
        "length": info.length,
        "open": info.open,
        "account": info.account,
        "metadata": metadata,
        "rules": [
            {
                "id": r.id,
                "account": r.account,
                "rse_expression": r.rse_expression,
                "state": r.state,
                "locks_ok": r.ok,
                "locks_replicating": r.replicating,
                "locks_stuck": r.stuck,
                "expires_at": r.expires_at,
            }
            for r in rules
        ],
        "replicas": replicas,
        "parents": [{"kind": p.kind, "scope": p.did.scope, "name": p.did.name} for p in parents],
    }


async def attachments(call: Call) -> Answer:
    """GET attachments"""
    manager = call.service.attachments
    return 200, {"attachments": [a.as_json() for a in manager.all()], "epoch": manager.epoch}


async def attach(call: Call) -> Answer:
    """POST attachments"""
    manager = call.service.attachments
    which = Did.parse(call.text("did"))
    variable, notebook = call.text("variable", ""), call.text("notebook", "")
    attachment, new = await manager.attach(which, variable, call.integer("lifetime", 0))
    if notebook:
        await call.service.bindings.put(notebook, variable or attachment.variable, attachment.id)
    # What is on scratch already is ready in a moment: then one round trip tells all.
    attachment = await manager.settled(attachment.id, MOVING, _SETTLE)
    return (201 if new else 200), attachment.as_json()


def _one(attachment: Attachment) -> Answer:
    return 200, attachment.as_json()


async def attachment(call: Call) -> Answer:
    """GET attachments/{id}, waiting up to `wait` seconds for it to be ready or to have failed"""
    seconds = min(call.number("wait", 0), 25)
    if seconds:
        await call.service.attachments.settled(call.path["id"], MOVING, seconds)
    return _one(call.service.attachments.get(call.path["id"]))


async def failures(call: Call) -> Answer:
    """GET attachments/{id}/failures"""
    some, total = await call.service.attachments.failures(call.path["id"])
    return 200, {"files": [{"did": str(f.did), "reason": f.reason} for f in some], "total": total}


async def release(call: Call) -> Answer:
    """DELETE attachments/{id}"""
    return _one(await call.service.attachments.release(call.path["id"], call.flag("purge")))


async def retry(call: Call) -> Answer:
    """POST attachments/{id}/retry"""
    return _one(await call.service.attachments.retry(call.path["id"]))


async def extend(call: Call) -> Answer:
    """POST attachments/{id}/extend"""
    return _one(await call.service.attachments.extend(call.path["id"], call.integer("lifetime")))


async def bindings(call: Call) -> Answer:
    """GET bindings"""
    return 200, {"bindings": call.service.bindings.of(call.query.get("notebook", ""))}


async def bind(call: Call) -> Answer:
    """PUT bindings"""
    service = call.service
    variable, found = call.text("variable"), service.attachments.get(call.text("attachment"))
    await service.bindings.put(call.text("notebook"), variable, found.id)
    directory = service.manifests.directory(found.id)
    return 200, {"code": snippets(variable, found.id, directory, found.state == "ready")}


async def unbind(call: Call) -> Answer:
    """DELETE bindings"""
    await call.service.bindings.delete(call.query.get("notebook", ""), call.query.get("variable", ""))
    return 204, None


async def variable(call: Call) -> Answer:
    """POST variables/suggest"""
    which = Did.parse(call.text("did"))
    taken = call.body.get("taken", [])
    if not isinstance(taken, list) or not all(isinstance(name, str) for name in taken) or len(taken) > 10_000:
        raise BadRequest("`taken` must be a list of texts.")
    if call.text("language", "python") not in LANGUAGES:
        raise BadRequest(f"`language` must be one of {', '.join(LANGUAGES)}.")
    name = suggest(which.name, taken)
    if not valid(name):
        raise BadRequest("No variable name can be made of this.")
    return 200, {"variable": name}


ROUTES = (
    Route("GET", "/status", status),
    Route("GET", "/children", children, kernel=False),
    Route("GET", "/did", did, kernel=False),
    Route("GET", "/attachments", attachments),
    Route("POST", "/attachments", attach),
    Route("GET", "/attachments/{id}", attachment),
    Route("DELETE", "/attachments/{id}", release),
    Route("GET", "/attachments/{id}/failures", failures),
    Route("POST", "/attachments/{id}/retry", retry),
    Route("POST", "/attachments/{id}/extend", extend),
    Route("GET", "/bindings", bindings),
    Route("PUT", "/bindings", bind),
    Route("DELETE", "/bindings", unbind),
    Route("POST", "/variables/suggest", variable, kernel=False),
)

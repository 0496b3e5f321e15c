"""The Rucio server as the box serves it: Rucio's own application, with some things put right."""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import request  # type: ignore[import-not-found]
from rucio.common.exception import AccessDenied
from rucio.core import replica_sorter
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.gateway import permission as gate
from rucio.web.rest.flaskapi.v1 import dids as did_views
from rucio.web.rest.flaskapi.v1 import rules as rule_views
from rucio.web.rest.flaskapi.v1.main import application

import dmsp_log

from . import again, examining, keyring, permission, quiet, requestlog

__all__ = ["application"]
LOG = logging.getLogger("dmsp.rules")


#: What some views let out as 500, and what it is.
STATUS = {"AccessDenied": 401, "ReplicationRuleCreationTemporaryFailed": 503}


@application.after_request
def answer_refusals_as_refusals(response: Any) -> Any:
    """Some views (``POST /rules/`` is one) let ``AccessDenied`` out as 500; elsewhere Rucio says 401.

    What collided for too long is no fault of the server's either: 503 wherever a view does not know it.
    """
    if response.status_code == 500:
        response.status_code = STATUS.get(response.headers.get("ExceptionClass"), 500)
    return response


@application.after_request
def tell_rules(response: Any) -> Any:
    """Log which rule a request made: from there on the daemons' log has only the rule's id."""
    if response.status_code == 201 and (request.method, request.path) == ("POST", "/rules/"):
        user = request.environ.get("issuer") or ""
        for rule in json.loads(response.get_data()):
            LOG.info("rule %s made: account=%s", rule, user or "-", extra={"user": user})
    return response


def order_of_preference(dictreplica: dict[str, Any], *_: Any, **__: Any) -> list[str]:
    """The replicas as they are, best first: everything is on this machine.

    The stock function tries to download a table of geographical distances from the internet, for every file.
    """
    return list(dictreplica)


replica_sorter.sort_geoip = order_of_preference


_add_did = did_views.add_did


def add_did(*args: Any, dids: list[dict[str, Any]] | None = None, rse: str | None = None, **kwargs: Any) -> Any:
    """Rucio's ``add_did`` (``POST /dids/<scope>/<name>``), with its content told to the policy.

    Rucio tells it the rules of the new collection and not what they will copy, nor that the files of the collection
    are to be registered on an RSE.
    """
    content, place = permission.CONTENT.set(dids or []), permission.PLACE.set(rse)
    try:
        return _add_did(*args, dids=dids, rse=rse, **kwargs)
    finally:
        permission.PLACE.reset(place)
        permission.CONTENT.reset(content)


did_views.add_did = add_did

_create_did_sample = did_views.create_did_sample


def create_did_sample(*, input_scope: str, input_name: str, **kwargs: Any) -> Any:
    """Rucio's ``create_did_sample``, with what is sampled told to the policy, which hears of the target alone."""
    told = permission.CONTENT.set([{"scope": input_scope, "name": input_name}])
    try:
        return _create_did_sample(input_scope=input_scope, input_name=input_name, **kwargs)
    finally:
        permission.CONTENT.reset(told)


did_views.create_did_sample = create_did_sample

_delete_metadata = did_views.delete_metadata


def delete_metadata(*, scope: str, name: str, key: str, vo: str) -> Any:
    """Rucio's ``delete_metadata``, which asks no permission at all: who may set metadata may delete it."""
    issuer, about = did_views.request.environ["issuer"], {"scope": scope, "name": name, "key": key}
    with db_session(DatabaseOperationType.READ) as session:
        asked = gate.has_permission(issuer=issuer, vo=vo, action="set_metadata", kwargs=about, session=session)
    if not asked.allowed:
        raise AccessDenied(f"Account {issuer} can not delete metadata of {scope}:{name}. {asked.message}")
    return _delete_metadata(scope=scope, name=name, key=key, vo=vo)


did_views.delete_metadata = delete_metadata
for _name in ("add_replication_rule", "update_replication_rule", "delete_replication_rule"):
    setattr(rule_views, _name, again.repeated(getattr(rule_views, _name)))
rule_views.examine_replication_rule = examining.examine_replication_rule
keyring.start()
# Rucio has put handlers of its own where it was imported, at the root and at its application.
application.logger.handlers.clear()
dmsp_log.start("rucio", rid=requestlog.current)
# Rucio says this of `true` and `false` and of its own defaults too, several times in a request.
logging.getLogger().addFilter(quiet.Without("Booleans should only accept true/false."))

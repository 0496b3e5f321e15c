"""The Rucio server as the box serves it: Rucio's own application, with four things put right."""

from __future__ import annotations

import logging
from typing import Any

from rucio.core import replica_sorter
from rucio.web.rest.flaskapi.v1 import dids as did_views
from rucio.web.rest.flaskapi.v1.main import application

from . import permission, quiet

__all__ = ["application"]


@application.after_request
def answer_refusals_as_refusals(response: Any) -> Any:
    """Some views (``POST /rules/`` is one) let ``AccessDenied`` out as 500; elsewhere Rucio says 401."""
    if response.status_code == 500 and response.headers.get("ExceptionClass") == "AccessDenied":
        response.status_code = 401
    return response


def order_of_preference(dictreplica: dict[str, Any], *_: Any, **__: Any) -> list[str]:
    """The replicas as they are, best first: everything is on this machine.

    The stock function tries to download a table of geographical distances from the internet, for every file.
    """
    return list(dictreplica)


replica_sorter.sort_geoip = order_of_preference


_add_did = did_views.add_did


def add_did(*args: Any, dids: list[dict[str, Any]] | None = None, **kwargs: Any) -> Any:
    """Rucio's ``add_did`` (``POST /dids/<scope>/<name>``), with its content told to the policy.

    Rucio tells it the rules of the new collection and not what they will copy.
    """
    told = permission.CONTENT.set(dids or [])
    try:
        return _add_did(*args, dids=dids, **kwargs)
    finally:
        permission.CONTENT.reset(told)


did_views.add_did = add_did
# Rucio says this of `true` and `false` and of its own defaults too, several times in a request.
logging.getLogger().addFilter(quiet.Without("Booleans should only accept true/false."))

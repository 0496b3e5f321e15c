"""The Rucio server as the box serves it: Rucio's own application, with two things put right."""

from __future__ import annotations

from typing import Any

from rucio.core import replica_sorter
from rucio.web.rest.flaskapi.v1.main import application

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

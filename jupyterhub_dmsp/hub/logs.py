"""JupyterHub and Jupyter Server log as all other parts do. Imports no Jupyter."""

from __future__ import annotations

import logging
from typing import Any

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.shared import dmsp_log


def start(part: str, user: str = "") -> dict[str, Any]:
    """Have this process log in our form; gives traits of ``Application`` for the level of its applications.

    Args:
        part: its name, where the environment names none.
        user: whom all its events concern.
    """
    # At DEBUG their own events could hold secrets: INFO is the least.
    return {"log_level": max(dmsp_log.start(part, rid=tracing.current, user=user), logging.INFO)}


def adopt(*applications: type[Any]) -> None:
    """Have these kinds of applications log in our form, from their first word on.

    Their option ``logging_config`` would come too late: an application logs before it has read its configuration.
    """
    for application in applications:
        application._log_formatter_cls = dmsp_log.Formatter

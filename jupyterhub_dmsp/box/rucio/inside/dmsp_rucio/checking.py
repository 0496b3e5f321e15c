"""``dmsp scratch check`` inside Rucio's environment: ``python -m dmsp_rucio.checking``.

Reads one JSON document (see ``jupyterhub_dmsp.box.integrity.audit``) from standard input and writes JSON lines to
standard output: ``{"progress": …}`` now and then, ``{"problem": …}`` for each fault, ``{"report": …}`` at the end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rucio.common.config import config_get
from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import RSENotFound
from rucio.core.rse import get_rse_id

import dmsp_log

from .auditing import Audit, Order, say
from .curing import Cure


def main() -> int:
    """0: the report was written; 1: it could not be, and standard error says why."""
    dmsp_log.start("integrity")
    order = Order(**json.load(sys.stdin))
    order.keep = tuple(order.keep)
    os.umask(0o027)
    try:
        rse_id = get_rse_id(order.rse, vo=DEFAULT_VO)
    except RSENotFound:
        print(f"The lake has no storage element {order.rse}.", file=sys.stderr)  # noqa: T201
        return 1
    root = str(Path(config_get("dmsp", "storage", check_config_table=False), order.rse, "lake"))
    audit = Audit(order, str(rse_id), root)
    problems = audit.run()
    for problem in problems:
        say(problem=problem.as_json())
    if order.repair and problems:
        Cure(audit).run()
        for problem in problems:
            say(outcome=problem.as_json())
    say(report={"files": audit.files, "bytes": audit.bytes, "read": audit.read})
    return 0


if __name__ == "__main__":
    sys.exit(main())

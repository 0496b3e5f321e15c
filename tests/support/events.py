"""The events of a box's logs, as programs that collect them see them."""

from __future__ import annotations

import json
import re
from typing import Any

from boxes import Box

from jupyterhub_dmsp.shared import dmsp_log

#: These write in a form of their own, or what others print.
OTHERS = ("database", "proxy", "scratch")
#: How a Jupyter server writes by itself.
_SERVERS = re.compile(r"\[[DIWEC] \d{4}-\d\d-\d\d ")


def of_request(box: Box, rid: str, *more: str) -> list[dict[str, Any]]:
    """What ``dmsp logs --request`` finds; empty when it finds nothing."""
    done = box.dmsp("logs", "--request", rid, "--json", *more, check=False)
    if done.returncode == 1 and "No log knows the request" in done.stderr:
        return []
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def strays(box: Box, form: str) -> list[str]:
    """Lines of our own parts that are no event, or one of another form."""
    found = []
    for path in sorted((box.state / "logs").rglob("*.log*")):
        name = str(path.relative_to(box.state / "logs")).partition(".log")[0]
        if name in OTHERS:
            continue
        for line in path.read_text(errors="replace").splitlines():
            event = dmsp_log.parse(line)
            if event is None and name.startswith("sessions/") and not _SERVERS.match(line):
                continue  # a user's program printed it
            if event is None or event.part != name or line.startswith("{") != (form == "json"):
                found.append(f"{name}: {line[:300]}")
    return found

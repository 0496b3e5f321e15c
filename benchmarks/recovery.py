"""How long each part of a box takes from ``kill -9`` to serving again, against its cold start in the same run."""

from __future__ import annotations

import time
from typing import Any

from killing import PARTS, kill_part, said

from benchmarks.common import Box, median, report, running_box

ROUNDS = 3


def recovery(box: Box, name: str) -> float:
    """Seconds until the part, killed now, is healthy again."""
    begin = time.perf_counter()
    before = kill_part(box, name)
    while True:
        part = said(box).get(name, {})
        if part.get("restarts", 0) > before and part.get("state") == "healthy":
            return time.perf_counter() - begin
        if time.perf_counter() - begin > 300:
            raise RuntimeError(f"{name} has not come back")
        time.sleep(0.02)


def settle(box: Box) -> None:
    """Wait until everything is healthy, so that one trial does not disturb the next."""
    while {part["state"] for part in said(box).values()} != {"healthy"}:
        time.sleep(0.2)


def main() -> None:
    """Each part in turn, three times."""
    with running_box() as box:
        cold = {name: part["start_seconds"] for name, part in said(box).items()}
        times: dict[str, list[float]] = {name: [] for name in PARTS if name in cold}
        for _ in range(ROUNDS):
            for name, found in times.items():
                settle(box)
                found.append(recovery(box, name))
    rows: list[dict[str, Any]] = [
        {
            "part": name,
            "cold start s": cold[name],
            "recovery s": median(found),
            "recovery / cold": median(found) / cold[name],
        }
        for name, found in times.items()
    ]
    columns = ["part", "cold start s", "recovery s", "recovery / cold"]
    report("recovery", columns, rows, f"kill -9 to healthy, median of {ROUNDS}")


if __name__ == "__main__":
    main()

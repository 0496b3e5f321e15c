"""How long a box takes from nothing to the login page, cold (new state) and warm, by part, and its memory."""

from __future__ import annotations

from benchmarks.common import Stopwatch, proportional_bytes, report, running_box


def main() -> None:
    """Cold start in a new state directory (packages from the installer's cache), then a warm one."""
    clock = Stopwatch()
    with running_box() as box:
        cold_total = clock.seconds
        cold = {part["name"]: part["start_seconds"] for part in box.status["parts"]}
        box.down()
        clock = Stopwatch()
        box.up()
        warm_total = clock.seconds
        rows = []
        for part in box.status["parts"]:
            memory = proportional_bytes(part["pid"]) / 1e6 if part["pid"] else None
            rows.append(
                {
                    "part": part["name"],
                    "cold s": cold[part["name"]],
                    "warm s": part["start_seconds"],
                    "memory MB": round(memory) if memory is not None else None,
                }
            )
        total = sum(row["memory MB"] or 0 for row in rows)
        rows.append(
            {
                "part": "all (wall)",
                "cold s": round(cold_total, 1),
                "warm s": round(warm_total, 1),
                "memory MB": total,
                "warm / cold": round(warm_total / cold_total, 3),
            }
        )
    report("startup", ["part", "cold s", "warm s", "memory MB", "warm / cold"], rows, "memory is PSS")

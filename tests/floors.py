"""Imports go down the floors only: a module may import from floors below its own, never from beside or above.

Run as a script; prints each import that climbs and exits with 1.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = "jupyterhub_dmsp"
FLOORS = {
    "errors": -1,  # below everything
    "shared": -1,
    "settings": 0,
    "tracing": 0,
    "profiles": 1,
    "lake": 1,
    "scratch": 1,
    "identity": 1,
    "sandbox": 1,
    "hub": 2,
    "lab": 2,
    "box": 3,
    "deploy": 3,
    "cli": 4,
}
APART = {"kernel", "labextension"}


def room_of(module: str) -> str | None:
    """The room of a module of ours; None for others' modules and for the package itself (its version)."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in a file, also of those inside functions."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.append((node.lineno, f"relative:{node.module}"))
            elif node.module == PACKAGE:
                found += [(node.lineno, f"{PACKAGE}.{alias.name}") for alias in node.names]
            elif node.module:
                found.append((node.lineno, node.module))
    return found


def faults(root: Path) -> list[str]:
    """One line for every import that does not go down."""
    out = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        relative = path.relative_to(root)
        if "labextension" in relative.parts:
            continue
        room = room_of(".".join(relative.with_suffix("").parts))
        inside = "inside" in relative.parts
        for line, module in imports(path):
            target = room_of(module)
            where = f"{relative}:{line}"
            if module.startswith("relative:") and not inside:
                out.append(f"{where}: relative import; name the module in full")
            elif (
                module.startswith("relative:")
                or target is None
                or target.startswith("_")
                or (target == room and not inside)
            ):
                continue
            elif inside or room in APART:
                out.append(f"{where}: runs apart and must not import {module}")
            elif target not in FLOORS:
                out.append(f"{where}: {module} stands on no floor")
            elif room is not None and room in FLOORS and FLOORS[target] >= FLOORS[room]:
                out.append(f"{where}: {room} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[target]})")
    return out


if __name__ == "__main__":
    found = faults(Path(__file__).parent.parent)
    print("\n".join(found) or "imports go down the floors")
    sys.exit(bool(found))

"""Run the benchmarks that are named, or all."""

from __future__ import annotations

import importlib
import sys

NAMES = ("startup", "session", "hub", "browse", "transfer", "attach", "recovery")


def main(names: list[str]) -> int:
    """Run each benchmark's ``main()``; a wrong name is refused before anything starts."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}; known: {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    for name in names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

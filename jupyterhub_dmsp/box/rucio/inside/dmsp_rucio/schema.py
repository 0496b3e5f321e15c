"""Rucio's ``generic`` schema, with names that stay inside their directory.

``generic`` allows ``..`` as a component of a scope or name, and Rucio makes file paths of both. What is not defined
here Rucio takes from ``generic``.
"""

from __future__ import annotations

from rucio.common.schema import generic

_NO_DOTS = r"^(?!(?:.*/)?\.{1,2}(?:/|$))"
SCOPE_NAME_REGEXP = generic.SCOPE_NAME_REGEXP
SCOPE = {**generic.SCOPE, "pattern": r"^(?!.*\.\.)(?!\.)[a-zA-Z_\-.0-9]+(?<!\.)$"}
NAME = {**generic.NAME, "pattern": _NO_DOTS + generic.NAME["pattern"].removeprefix("^")}
SCHEMAS = {"scope": SCOPE, "name": NAME}

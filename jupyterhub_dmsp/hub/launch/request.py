"""What somebody asked for, out of a form or a query, as plain options; what was not offered is refused later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub_dmsp.profiles.launch import OPTIONS, NotOffered, shown

PROFILE = "profile"
SEPARATOR = ":"
"""Between a choice and its profile in a field's name: without JavaScript every card's choices are sent."""

IGNORED = {"_xsrf"}


def field(option: str, slug: str) -> str:
    """Name of the form's field for one choice of one profile."""
    return f"{option}{SEPARATOR}{slug}"


def options(data: Mapping[str, list[Any]]) -> dict[str, str]:
    """The options in a form's fields, or in a query: those of the chosen profile's card, and no other card's.

    Raises:
        NotOffered: for a field that no form of ours has, one that is given twice, or a file.
    """
    found: dict[str, str] = {}
    slug = _text(PROFILE, data.get(PROFILE, [""]))
    for name, values in data.items():
        if name in IGNORED:
            continue
        option, separator, card = name.partition(SEPARATOR)
        if option not in OPTIONS or (separator and option == PROFILE):
            raise NotOffered(f"The option {shown(name)} is not known.", "option")
        if separator and card != slug:
            continue
        if option in found:
            raise NotOffered(f"The option `{option}` is given twice.", "option")
        found[option] = _text(option, values)
    return {name: value for name, value in found.items() if value or name == PROFILE}


def _text(option: str, values: list[Any]) -> str:
    if len(values) != 1:
        raise NotOffered(f"The option `{option}` must be given once.", "option")
    if not isinstance(values[0], str):
        raise NotOffered(f"The option `{option}` must be text.", "option")
    return values[0]

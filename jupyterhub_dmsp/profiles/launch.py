"""One start, decided: a profile, what its user chose, and what their groups allow. Imports no Jupyter.

Whoever asks, and however (a form, a query, an API), asks in words; :func:`resolve` turns them into a
:class:`Launch` or refuses with a sentence. Nothing that was not offered gets through.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.profiles.builder import EnvironmentSpec
from jupyterhub_dmsp.profiles.schema import Limits, Mode, Mount, Profile, Variant, in_bytes

OPTIONS = ("profile", "variant", "memory", "cpu", "gpu")
"""All that a request may name."""

_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?", re.ASCII)


class NotOffered(DmspError):
    """A request for something that this profile does not offer to this user; ``reason`` is one word for programs."""

    def __init__(self, sentence: str, reason: str = "choice") -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Capacity:
    """What a place still has for sessions; None where nobody can tell."""

    memory_bytes: int | None = None
    cpu: float | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Launch:
    """One start that was asked for and is allowed: a profile with every choice made.

    Attributes:
        profile: what is launched.
        limits: after the user's choices.
        gpus: graphics processors.
        variant: the edition; None for the profile itself.
    """

    profile: Profile
    limits: Limits
    gpus: int = 0
    variant: Variant | None = None

    @property
    def mode(self) -> Mode | None:
        """How datasets reach the session; None where the profile leaves it to the site."""
        return self.profile.mode

    @property
    def image(self) -> str:
        """Container image; empty when none is named."""
        return (self.variant.image if self.variant else "") or self.profile.image

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables; the variant's win."""
        return self.profile.variables | (self.variant.variables if self.variant else {})

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """Folders that the session sees beside home and scratch."""
        return tuple(self.profile.mounts)

    def environment(self) -> EnvironmentSpec:
        """What is built, where environments are built."""
        return self.profile.environment(self.variant)

    def options(self) -> dict[str, Any]:
        """The same start as a request: what JupyterHub keeps, and what is preselected the next time."""
        return {
            "profile": self.profile.slug,
            "variant": self.variant.name if self.variant else "",
            "memory": self.limits.memory,
            "cpu": self.limits.cpu,
            "gpu": self.gpus,
        }


@dataclass(frozen=True)
class Offer:
    """What one user may choose of one profile; a list is empty where there is nothing to choose."""

    memory: tuple[str, ...] = ()
    cpu: tuple[float, ...] = ()
    gpu: tuple[int, ...] = ()


def offer(profile: Profile, groups: Collection[str]) -> Offer:
    """The choices of a profile that are open to a member of these groups of the issuer."""
    choices = profile.choices
    memory = _most(profile, groups, "memory")
    cpu = _most(profile, groups, "cpu")
    gpu = _most(profile, groups, "gpu")
    return Offer(
        tuple(value for value in choices.memory if memory is None or in_bytes(value) <= memory),
        tuple(value for value in choices.cpu if cpu is None or value <= cpu),
        tuple(value for value in choices.gpu if gpu is None or value <= gpu),
    )


def resolve(profile: Profile, options: Mapping[str, Any], groups: Collection[str]) -> Launch:
    """The launch that a request for this profile means.

    Args:
        profile: what is wanted; that the user may launch it is the caller's to check.
        options: what was asked, from wherever; an empty value means the default.
        groups: the groups that the issuer gave the user.

    Raises:
        NotOffered: with a sentence that says what is offered instead.
    """
    unknown = next((name for name in options if name not in OPTIONS), None)
    if unknown is not None:
        raise NotOffered(f"The option {shown(unknown)} is not known.", "option")
    open_, limits = offer(profile, groups), profile.limits
    memory = _one(options, "memory", open_.memory, profile.choices.memory, limits.memory)
    cpu = _one(options, "cpu", open_.cpu, profile.choices.cpu, limits.cpu)
    gpu = _one(options, "gpu", open_.gpu, profile.choices.gpu, default_gpus(profile))
    return Launch(
        profile,
        limits.model_copy(update={"memory": memory, "cpu": cpu}),
        gpu,
        _variant(profile, options.get("variant")),
    )


def default_gpus(profile: Profile) -> int:
    """Graphics processors of a session whose user chose nothing."""
    return profile.choices.gpu[0] if profile.choices.gpu else 0


def shown(text: object) -> str:
    """A stranger's text, short enough to be repeated, and without what a terminal would obey."""
    if not isinstance(text, str):
        return "of another type than text"
    return ascii(text if len(text) <= 40 else f"{text[:40]}...")


def _most(profile: Profile, groups: Collection[str], resource: str) -> float | None:
    """The most of a resource that may be chosen, memory in bytes; None for no bound."""
    given = {group: getattr(limit, resource) for group, limit in profile.group_limits.items()}
    if all(value is None for value in given.values()):
        return None
    base = default_gpus(profile) if resource == "gpu" else getattr(profile.limits, resource)
    mine = [base, *(value for group, value in given.items() if group in groups and value is not None)]
    return max(float(in_bytes(value)) if isinstance(value, str) else float(value) for value in mine)


def _one(options: Mapping[str, Any], name: str, allowed: Collection[Any], all_: list[Any], default: Any) -> Any:
    """The chosen value of a resource, as the profile spells it."""
    asked = options.get(name)
    if asked is None or asked == "":
        return default
    value = _value(asked, text=name == "memory")
    offered = allowed if all_ else (default,)
    if value is not None:
        for choice in offered:
            if choice == value:
                return choice
    listed = ", ".join(_spelled(choice) for choice in offered)
    if value is not None and value in all_:
        raise NotOffered(
            f"{_spelled(value)} for `{name}` is more than your groups may choose; you may choose {listed}.",
            "limit",
        )
    raise NotOffered(f"The choice {_repeated(asked)} for `{name}` is not offered; offered: {listed}.")


def _value(asked: object, *, text: bool) -> str | float | None:
    """What was asked as text or number; None when it can be neither. Forms send numbers as text."""
    if text:
        return asked if isinstance(asked, str) and len(asked) <= 20 else None
    if isinstance(asked, str):
        return float(asked) if _NUMBER.fullmatch(asked) else None
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return None
    return asked


def _variant(profile: Profile, asked: object) -> Variant | None:
    if asked is None or asked == "":
        return None
    found = profile.variant(asked) if isinstance(asked, str) else None
    if found is None:
        names = ", ".join(variant.name for variant in profile.variants) or "none"
        raise NotOffered(f"{profile.name} has no variant {_repeated(asked)}; there are: {names}.")
    return found


def _spelled(choice: object) -> str:
    return choice if isinstance(choice, str) else f"{choice:g}"


def _repeated(asked: object) -> str:
    if isinstance(asked, int | float) and not isinstance(asked, bool) and abs(asked) < 1e9:
        return f"{asked:g}"
    return shown(asked)

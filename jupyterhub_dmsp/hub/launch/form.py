"""The form on the launch page: one card a profile, plain HTML that works without JavaScript."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from jupyterhub_dmsp.hub.launch import request
from jupyterhub_dmsp.profiles import lock
from jupyterhub_dmsp.profiles.launch import Capacity, NotOffered, default_gpus, offer, resolve
from jupyterhub_dmsp.profiles.schema import Profile, Variant, in_bytes, in_words
from jupyterhub_dmsp.settings import Settings

TEMPLATES = Path(__file__).parents[1] / "templates"
_UNITS = {"M": "MB", "G": "GB", "T": "TB"}

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Select:
    """One thing to choose; ``values`` are what is sent, what is read, and whether it is preselected."""

    name: str
    label: str
    values: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True)
class Edition:
    """Packages of a profile, or what a variant has otherwise."""

    title: str
    text: str
    packages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Card:
    """One profile as the page shows it."""

    profile: Profile
    selects: tuple[Select, ...]
    packages: tuple[tuple[str, str], ...]
    editions: tuple[Edition, ...]
    facts: tuple[str, ...]
    embargoes: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Shelf:
    """The cards of one experiment."""

    title: str
    cards: tuple[Card, ...]


def render(
    profiles: Sequence[Profile],
    settings: Settings,
    *,
    groups: Collection[str] = (),
    last: Mapping[str, Any] | None = None,
    capacity: Capacity | None = None,
    notice: str = "",
) -> str:
    """HTML of the form's inside. Reads the locks: call it in a thread.

    Args:
        profiles: what the user may launch, in this order; a message explains when there is none.
        settings: site, experiments and the default profile.
        groups: the user's groups at the issuer, for what they may choose.
        last: options of the last launch; preselected as far as they are still there.
        capacity: what is free for sessions now.
        notice: a sentence above the cards.
    """
    last = last or {}
    named = last.get(request.PROFILE)
    chosen = preselected(profiles, named if isinstance(named, str) else "", settings.profiles.default)
    cards = [
        _card(profile, settings, groups, last if profile.slug == named else {}, capacity)
        for profile in profiles
    ]
    return _environment.get_template("profiles.html").render(
        shelves=_shelves(cards, settings, groups),
        count=len(cards),
        chosen=chosen,
        support=settings.site.support,
        notice=notice,
        free=_free(capacity),
    )


def preselected(profiles: Sequence[Profile], last: str, default: str) -> str:
    """The slug that is chosen before the user chooses: the last one, the default one, the first one."""
    slugs = [profile.slug for profile in profiles]
    return next((slug for slug in (last, default) if slug in slugs), slugs[0] if slugs else "")


def memory_text(memory: str) -> str:
    """A memory such as ``4G`` as people read it."""
    return f"{memory[:-1]} {_UNITS[memory[-1]]}"


def _shelves(cards: Sequence[Card], settings: Settings, groups: Collection[str]) -> list[Shelf]:
    """Cards by experiment, the user's first; a card stands once, where its user belongs."""
    titles = {e.name: e.title or e.name for e in settings.experiments}
    mine = [e.name for e in settings.experiments_of(set(groups))]
    found: dict[str, list[Card]] = {}
    for card in cards:
        names = card.profile.experiments
        name = next((name for name in names if name in mine), names[0] if names else "")
        for_groups = "For your groups" if card.profile.groups else "For everybody"
        found.setdefault(titles.get(name, name) if name else for_groups, []).append(card)
    return [Shelf(title, tuple(shelved)) for title, shelved in found.items()]


def _card(
    profile: Profile,
    settings: Settings,
    groups: Collection[str],
    last: Mapping[str, Any],
    capacity: Capacity | None,
) -> Card:
    selects = _selects(profile, groups, last, capacity)
    titles = {e.name: e.title or e.name for e in settings.experiments}
    own = lock.packages(profile.lock)
    facts = [kernel.display_name for kernel in profile.kernels]
    if not profile.choices.memory:
        facts.append(f"{memory_text(profile.limits.memory)} of memory")
    if not profile.choices.cpu:
        facts.append(_cores(profile.limits.cpu))
    if default_gpus(profile) and len(profile.choices.gpu) == 1:
        facts.append(_gpus(default_gpus(profile)))
    experiments = [titles.get(name, name) for name in profile.experiments]
    said = [profile.name, profile.slug, profile.description, *facts, *experiments, *profile.highlights, *own]
    return Card(
        profile,
        selects,
        tuple(sorted(own.items(), key=lambda item: item[0].lower())),
        tuple(_edition(profile, variant, own) for variant in profile.variants),
        tuple(facts),
        tuple(e.embargo for e in settings.experiments if e.embargo and e.name in profile.experiments),
        " ".join(said).lower(),
    )


def _edition(profile: Profile, variant: Variant, own: Mapping[str, str]) -> Edition:
    """A variant, with the packages that it has otherwise than the profile."""
    theirs = lock.packages(profile.folder / variant.lock) if variant.lock else dict(own)
    other = {name: version for name, version in theirs.items() if own.get(name) != version}
    other |= {name: "not in it" for name in own if name not in theirs}
    packages = sorted(other.items(), key=lambda item: item[0].lower())
    return Edition(variant.title or variant.name, variant.description, tuple(packages))


def _selects(
    profile: Profile, groups: Collection[str], last: Mapping[str, Any], capacity: Capacity | None
) -> tuple[Select, ...]:
    """What can be chosen; one value is no choice and is said among the facts instead."""
    now = _current(profile, groups, last)
    open_, free = offer(profile, groups), capacity or Capacity()
    made: list[Select] = []

    def add(option: str, label: str, values: Sequence[tuple[str, str]]) -> None:
        marked = tuple((value, text, value == str(now[option])) for value, text in values)
        made.append(Select(request.field(option, profile.slug), label, marked))

    if profile.variants:
        editions = [("", "Standard"), *((v.name, v.title or v.name) for v in profile.variants)]
        add("variant", "Edition", editions)
    if profile.choices.memory:
        texts = [(m, memory_text(m) + _beyond(in_bytes(m), free.memory_bytes)) for m in open_.memory]
        add("memory", "Memory", texts)
    if profile.choices.cpu:
        add("cpu", "Cores", [(f"{c:g}", f"{c:g}" + _beyond(c, free.cpu)) for c in open_.cpu])
    if len(open_.gpu) > 1:
        add(
            "gpu",
            "Graphics processors",
            [(f"{g}", f"{g or 'none'}" + _beyond(g, free.gpus)) for g in open_.gpu],
        )
    return tuple(made)


def _current(profile: Profile, groups: Collection[str], last: Mapping[str, Any]) -> dict[str, str]:
    """The options to preselect: the last ones as far as each is still offered, else the defaults."""
    kept: dict[str, Any] = {}
    for option, value in last.items():
        try:
            resolve(profile, {option: value}, groups)
        except NotOffered:
            continue
        kept[option] = value
    made = resolve(profile, kept, groups).options()
    return {name: f"{value:g}" if isinstance(value, int | float) else value for name, value in made.items()}


def _beyond(wanted: float, free: float | None) -> str:
    return " (more than is free now)" if free is not None and wanted > free else ""


def _free(capacity: Capacity | None) -> str:
    """What is free, as a phrase; empty when nobody can tell."""
    if capacity is None:
        return ""
    parts = []
    if capacity.memory_bytes is not None:
        parts.append(f"{in_words(max(0, capacity.memory_bytes))} of memory")
    if capacity.cpu is not None:
        parts.append(_cores(max(0.0, round(capacity.cpu, 1))))
    if capacity.gpus:
        parts.append(_gpus(capacity.gpus))
    return ", ".join(parts)


def _cores(number: float) -> str:
    return f"{number:g} core{'' if number == 1 else 's'}"


def _gpus(number: int) -> str:
    return f"{number} graphics processor{'' if number == 1 else 's'}"

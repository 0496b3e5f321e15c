"""The form on the launch page: one card a profile, plain HTML that works without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from jupyterhub_dmsp.profiles.catalogue import Profile
from jupyterhub_dmsp.settings import Settings

TEMPLATES = Path(__file__).parents[1] / "templates"

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def render(profiles: Sequence[Profile], settings: Settings, *, last: str = "", notice: str = "") -> str:
    """HTML of the form's inside.

    Args:
        profiles: what the user may launch, in this order; a message explains when there is none.
        settings: site, experiments and the default profile.
        last: profile that was launched last; preselected if it is still there.
        notice: a sentence above the cards.
    """
    titles = {experiment.name: experiment.title or experiment.name for experiment in settings.experiments}
    return _environment.get_template("profiles.html").render(
        profiles=profiles,
        chosen=preselected(profiles, last, settings.profiles.default),
        titles=titles,
        embargoes={e.name: e.embargo for e in settings.experiments if e.embargo},
        support=settings.site.support,
        notice=notice,
    )


def preselected(profiles: Sequence[Profile], last: str, default: str) -> str:
    """The slug that is chosen before the user chooses: the last one, the default one, the first one."""
    slugs = [profile.slug for profile in profiles]
    return next((slug for slug in (last, default) if slug in slugs), slugs[0] if slugs else "")

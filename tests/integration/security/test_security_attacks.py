"""What the second user cannot reach, tried from inside a real session; and that each try works where it should."""

from __future__ import annotations

import attacks
import pytest
from attacks import browsing
from attacks.world import World

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

Found = dict[str, tuple[bool, str]]


@pytest.fixture(scope="module")
async def attacked(world: World) -> Found:
    """What came of every try of the attacker."""
    await world.in_session(world.attacker, attacks.PLAIN, world.attack)
    for one in attacks.browser.TRIES:
        world.found[one.id] = await browsing.perform(one.id, world, attack=True)
    found, world.found = world.found, {}
    return found


@pytest.fixture(scope="module")
async def controlled(world: World, attacked: Found) -> Found:
    """What came of the same tries where they should succeed; after the attack, for some end things."""
    by = {name: [one for one in attacks.PLAIN if one.control == name] for name in world.facts}
    await world.in_session(world.victim, by["victim"], world.facts["victim"])
    await world.in_session(world.attacker, by["own"], world.facts["own"])
    for name in ("root", "admin"):
        await world.on_host(by[name], world.facts[name])
    for one in sorted(attacks.browser.TRIES, key=lambda one: one.id == "hub-stop"):
        world.found[one.id] = await browsing.perform(one.id, world, attack=False)
    found, world.found = world.found, {}
    return found


def _shown(found: Found, names: list[str]) -> str:
    return "\n".join(f"{name}: {found[name][1]}" for name in names)


def test_nothing_gets_through(attacked: Found) -> None:
    assert set(attacked) == {one.id for one in attacks.TRIES}
    through = [name for name, (succeeded, _) in attacked.items() if succeeded]
    assert not through, _shown(attacked, through)


def test_each_try_works_where_it_should(controlled: Found) -> None:
    assert set(controlled) == {one.id for one in attacks.TRIES}
    broken = [name for name, (succeeded, _) in controlled.items() if not succeeded]
    assert not broken, _shown(controlled, broken)


def test_the_tries_were_refused_and_not_broken(attacked: Found) -> None:
    """A probe that fails by its own mistake would pass the first test: none ends with an error of Python itself."""
    mistakes = (
        "NameError",
        "SyntaxError",
        "KeyError",
        "TypeError",
        "AttributeError",
        "AssertionError",
        "ImportError",
    )
    broken = [name for name, (_, said) in attacked.items() if said.startswith(mistakes)]
    assert not broken, _shown(attacked, broken)

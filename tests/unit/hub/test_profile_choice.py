"""What a request for a profile turns into, whoever sends it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_dmsp.hub.errors import SpawnException
from jupyterhub_dmsp.hub.launch.spawner import Cached, ProfileSpawner, Steps

CATALOGUE = Path(__file__).parents[2] / "integration" / "hub" / "catalogue"


def spawner(*groups: str, catalogue: Path = CATALOGUE) -> ProfileSpawner:
    one = ProfileSpawner(catalogue_path=str(catalogue))
    one.user = SimpleNamespace(name="km3net-user", groups=[SimpleNamespace(name=name) for name in groups])
    one.user_options = {}
    return one


@pytest.mark.parametrize(
    ("groups", "options", "slug"),
    [
        ((), {"profile": "everybody"}, "everybody"),
        ((), {}, "everybody"),
        ((), {"profile": ""}, "everybody"),
        (("/dmsp/km3net",), {"profile": "deepsea"}, "deepsea"),
    ],
)
async def test_admitted(groups: tuple[str, ...], options: dict[str, Any], slug: str) -> None:
    one = spawner(*groups)
    assert (await one.choose(options)).profile.slug == slug
    assert one.profile is not None
    assert one.profile.slug == slug


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "deepsea"}, "The profile deepsea is not open to your groups."),
        ({"profile": "nosuch"}, "There is no profile 'nosuch'."),
        ({"profile": "x" * 500}, "There is no profile 'xxxx"),
        ({"profile": 5}, "short name"),
        ({"profile": None}, "short name"),
        ({"profile": ["everybody"]}, "short name"),
        ({"image": "evil"}, "The option 'image' is not known"),
        ({"profile": "../everybody"}, "There is no profile"),
        ({"profile": "everybody", "memory": "2G"}, "more than your groups may choose"),
        (["everybody"], "The options must be a mapping"),
        ("everybody", "The options must be a mapping"),
    ],
)
async def test_refused(options: dict[str, Any], sentence: str) -> None:
    one = spawner("/dmsp/collider")
    with pytest.raises(SpawnException) as caught:
        await one.choose(options)
    assert caught.value.status_code == 400
    assert sentence in str(getattr(caught.value, "jupyterhub_message", caught.value))
    assert len(str(caught.value)) < 200
    assert one.profile is None


async def test_refused_request_does_not_become_the_last_one() -> None:
    one = spawner()
    one.orm_spawner = SimpleNamespace(user_options={})  # type: ignore[attr-defined]
    await one.choose({"profile": "everybody", "memory": "512M", "cpu": "1"})
    kept = {"profile": "everybody", "variant": "", "memory": "512M", "cpu": 1.0, "gpu": 0}
    assert one.user_options == one.orm_spawner.user_options == kept  # type: ignore[attr-defined]
    one.user_options = one.orm_spawner.user_options = {"profile": "x" * 10**6}  # type: ignore[attr-defined]
    with pytest.raises(SpawnException):
        await one.choose(one.user_options)
    assert one.user_options == one.orm_spawner.user_options == kept  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["..", "a b", "A", "x" * 31, "a\0", "-a"])
async def test_servers_names_are_plain(name: str) -> None:
    one = spawner()
    one.name = name  # type: ignore[attr-defined]
    with pytest.raises(SpawnException, match="small letters"):
        await one.choose({})


async def test_broken_catalogue_is_no_error_of_the_hub(tmp_path: Path) -> None:
    shutil.copytree(CATALOGUE, tmp_path / "c")
    (tmp_path / "c" / "everybody" / "profile.yaml").write_text("name: [")
    one = spawner(catalogue=tmp_path / "c")
    with pytest.raises(SpawnException) as caught:
        await one.choose({"profile": "everybody"})
    assert caught.value.status_code == 503
    assert "profile.yaml is not YAML" in await one._render_form(one)


async def test_catalogue_is_read_again_when_a_file_changes(tmp_path: Path) -> None:
    shutil.copytree(CATALOGUE, tmp_path / "c")
    one = spawner(catalogue=tmp_path / "c")
    assert next(p.name for p in await one.offered()) == "Everybody's"
    file = tmp_path / "c" / "everybody" / "profile.yaml"
    file.write_text(file.read_text().replace("Everybody's", "Renamed"))
    assert next(p.name for p in await one.offered()) == "Renamed"


def test_cache_reads_once(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("1")
    calls: list[Path | None] = []
    cached = Cached()

    def read(path: Path | None) -> int:
        calls.append(path)
        return len(calls)

    assert [cached.get(read, file), cached.get(read, file)] == [1, 1]
    file.write_text("22")
    assert cached.get(read, file) == 2
    assert cached.get(read, None) == 3


async def test_steps_reach_early_and_late_watchers() -> None:
    steps = Steps()

    async def watch() -> list[tuple[int, str]]:
        return [(event["progress"], event["message"]) async for event in steps]

    early = asyncio.create_task(watch())
    await asyncio.sleep(0)
    steps.say("one", 10)
    await asyncio.sleep(0)
    steps.say("two", 5)
    steps.say("two", 5)
    steps.say("three", 400)
    steps.close()
    expected = [(10, "one"), (10, "two"), (99, "three")]
    assert await early == expected
    assert await watch() == expected

"""Two users, one dataset: what one of them gives back, with its files, is never taken from under the other."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attaching import Attaching

from jupyterhub_dmsp.lab.records import Attachment
from jupyterhub_dmsp.lake.did import Did

pytestmark = pytest.mark.root
ROUNDS = 12
FILES = 40


class User(Attaching):
    """One who attaches, reads and gives back."""

    async def attach(self, dataset: str) -> Attachment:
        attachment, _ = await self.manager.attach(Did.parse(dataset))
        return await self.settled(attachment.id)

    async def settled(self, ident: str) -> Attachment:
        moving = frozenset({"requested", "replicating", "landing"})
        return await self.manager.settled(ident, moving, 90)

    def read(self, ident: str) -> int:
        """Bytes of the files that the manifest names, opened one by one as a kernel does."""
        paths = (self.directory / "run" / "attachments" / ident / "paths.txt").read_text().splitlines()
        return sum(len(Path(path).read_bytes()) for path in paths)


@pytest.fixture
async def new_user(lake: Any, tmp_path: Path) -> AsyncIterator[Callable[[], User]]:
    made: list[User] = []

    def make() -> User:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(User(lake, directory))
        return made[-1]

    yield make
    for user in made:
        await user.close()


def _dataset(lake: Any, did: Any) -> tuple[str, int]:
    dataset: str = did("km3net")
    files = {f"{dataset.split(':')[1]}.{n:02d}": os.urandom(1000 + n) for n in range(FILES)}
    lake.put(dataset, files)
    return dataset, sum(map(len, files.values()))


async def _rule_is_made(user: User) -> None:
    while not user.client.counters.by_path.get("POST /rules"):
        await asyncio.sleep(0.001)


async def _files_are_read(user: User) -> None:
    while not user.client.counters.by_path.get("GET /dids/*/*/files"):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("moment", [_files_are_read, _rule_is_made])
async def test_purged_while_another_attaches(
    lake: Any, did: Any, new_user: Callable[[], User], moment: Callable[[User], Awaitable[None]]
) -> None:
    dataset, size = _dataset(lake, did)
    one, other = new_user(), new_user()
    first = await one.attach(dataset)
    attaching = asyncio.create_task(other.attach(dataset))
    await moment(other)
    await one.manager.release(first.id, purge=True)
    second = await attaching
    assert (
        second.id == first.id
    )  # a dataset's attachment has one id, and each user's lies in a directory of theirs
    for _ in range(20):  # for as long as the first rule, and what it alone held, is being deleted
        assert (second.state, second.error) == ("ready", None)
        assert other.read(second.id) == size
        await asyncio.sleep(0.1)
    assert (await other.client.rule(second.rule_id or "")).ok == FILES


async def test_three_who_attach_read_and_purge_as_they_like(
    lake: Any, did: Any, new_user: Callable[[], User]
) -> None:
    dataset, size = _dataset(lake, did)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")

    async def work(user: User, chance: random.Random) -> None:
        for _ in range(ROUNDS):
            attachment = await user.attach(dataset)
            assert (attachment.state, attachment.error) == ("ready", None)
            for _ in range(chance.randrange(1, 4)):
                assert await asyncio.to_thread(user.read, attachment.id) == size
                await asyncio.sleep(chance.uniform(0, 0.3))
            await user.manager.release(attachment.id, purge=chance.random() < 0.7)

    users = [new_user() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for number, user in enumerate(users):
            group.create_task(work(user, random.Random(f"{seed} {number}")))

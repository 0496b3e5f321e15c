"""Profiles in any spawner: a form that offers what the user may launch, and a check that holds however it is asked.

:class:`ProfileSpawner` is a mixin. It knows the catalogue and the user's experiments, nothing of how sessions run.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from jupyterhub import version_info
from traitlets import Any as AnyTrait
from traitlets import Dict, Unicode, default

from jupyterhub_dmsp import settings as dmsp_settings
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.hub import keeping
from jupyterhub_dmsp.hub.errors import SpawnException
from jupyterhub_dmsp.hub.launch import form, handlers, request
from jupyterhub_dmsp.hub.metrics.watching import Watched, choosing
from jupyterhub_dmsp.profiles import catalogue as profiles_catalogue
from jupyterhub_dmsp.profiles.catalogue import Catalogue, Profile
from jupyterhub_dmsp.profiles.launch import Capacity, Launch, NotOffered, resolve, shown
from jupyterhub_dmsp.settings import Experiment, Settings

SERVER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
"""Folders, network names and pods are named after it; JupyterHub 5 takes any."""

Stamp = tuple[tuple[str, int, int], ...]


class Cached:
    """Something read from files, read again when one of them changed. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Any, str], tuple[Stamp, Any]] = {}

    def get(self, read: Any, path: Path | None, pattern: str = "") -> Any:
        """``read(path)``; ``pattern`` names the files below ``path`` that count."""
        files = sorted(path.glob(pattern)) if path and pattern else [path] if path else []
        stamp = tuple((str(file), (s := file.stat()).st_mtime_ns, s.st_size) for file in files if file.exists())
        with self._lock:
            kept = self._kept.get((read, str(path)))
            if kept is None or kept[0] != stamp:
                kept = self._kept[read, str(path)] = (stamp, read(path))
            return kept[1]


_cached = Cached()
handlers.install()


class Steps:
    """What happens during one start, for whoever watches; late watchers get it from the beginning."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._closed = False

    def say(self, message: str, percent: float | None = None) -> None:
        """Add a step; ``percent`` never goes back. Repetitions are dropped."""
        last: dict[str, Any] = self._events[-1] if self._events else {"progress": 0, "message": ""}
        value = max(last["progress"], min(int(percent), 99)) if percent is not None else last["progress"]
        if message != last["message"] or value != last["progress"]:
            self._events.append({"progress": value, "message": message})
            self._wake()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        seen = 0
        while True:
            changed = self._changed
            while seen < len(self._events):
                yield self._events[seen]
                seen += 1
            if self._closed:
                return
            if seen == len(self._events):
                await changed.wait()


class ProfileSpawner(Watched):
    """Put it before a spawner class: that one then starts profiles, each only for members of its experiments."""

    user: Any
    get_env: Any
    user_options = AnyTrait(
        help="""What was asked. JupyterHub 5 hands over any JSON; what is no mapping is refused in :meth:`choose`."""
    )

    settings_file = Unicode(
        "", config=True, help="""Path of dmsp.yaml. Default: empty, which means the defaults."""
    )
    catalogue_path = Unicode(
        "",
        config=True,
        help="""Folder of the catalogue. Default: empty, which means ``profiles.path`` of dmsp.yaml, else the
        shipped one.""",
    )

    session_settings = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""``callable(spawner) -> dict``, merged into session.json. Default: None.""",
    )
    session_files = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""``callable(spawner) -> {name: text}``: read-only files below /etc/dmsp. Default: None.""",
    )
    lake = Dict(
        config=True,
        help="""What session.json says about the lake beyond dmsp.yaml: ``rucio_url``, ``auth_url``, ``site``,
        ``prefix``.""",
    )

    launch: Launch | None = None
    """The coming start, every choice made; set by :meth:`choose`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        keeping.begin()
        self.steps = Steps()
        # A stranger may have stored something with JupyterHub's API: the form takes from it what it offers.
        self._allowed: dict[str, Any] = dict(self.user_options if isinstance(self.user_options, dict) else {})
        if version_info[0] < 6 and self.has_trait("consecutive_failure_limit"):
            # JupyterHub 5 counts a refused request as a failed start: some bad requests of one user would end it.
            self.consecutive_failure_limit = 0

    @default("user_options")
    def _default_user_options(self) -> dict[str, Any]:
        return {}

    @default("options_form")
    def _default_options_form(self) -> Any:
        return self._render_form

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._read_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return lambda spawner, options: spawner.choose(options)

    @property
    def profile(self) -> Profile | None:
        """What the coming start is for."""
        return self.launch.profile if self.launch else None

    async def capacity(self) -> Capacity | None:
        """What is free for sessions now, for the launch page; None when nobody can tell."""
        return None

    async def before_start(self, launch: Launch) -> None:
        """Look whether a start can succeed now; raises :class:`SpawnException` with a sentence when not."""

    def hub_variables(self) -> dict[str, str]:
        """JupyterHub's variables for a server, without its secrets."""
        env: dict[str, str] = {key: str(value) for key, value in self.get_env().items()}
        # JupyterHub's name for the token and the one of its first years; the launcher reads a file instead.
        for name in ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"):
            env.pop(name, None)
        return env

    def with_hooks(self, description: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """What a session is told, and its further files, after the configuration's hooks have had their say."""
        more = self.session_settings(self) if self.session_settings is not None else {}
        files = self.session_files(self) if self.session_files is not None else {}
        return description | more, files

    async def whom_to_ask(self) -> str:
        """The end of a sentence that a user can do nothing about."""
        settings = await asyncio.to_thread(self.dmsp_settings)
        return f"Ask {settings.site.support or 'an administrator'}."

    def dmsp_settings(self) -> Settings:
        """``dmsp.yaml`` as it is now. Reads files: call it in a thread."""
        path = Path(self.settings_file) if self.settings_file else None
        found: Settings = _cached.get(dmsp_settings.load, path)
        return found

    def catalogue(self) -> Catalogue:
        """The catalogue as it is now. Reads files: call it in a thread."""
        chosen = Path(self.catalogue_path) if self.catalogue_path else self.dmsp_settings().profiles.path
        found: Catalogue = _cached.get(
            profiles_catalogue.load, chosen or profiles_catalogue.default_path(), "*/*"
        )
        return found

    def groups_of_user(self) -> set[str]:
        """The groups that the issuer gave the user, as the hub keeps them."""
        return {group.name for group in self.user.groups}

    async def experiments(self) -> list[Experiment]:
        """The experiments that the user belongs to, the open ones included."""
        settings = await asyncio.to_thread(self.dmsp_settings)
        return settings.experiments_of(self.groups_of_user())

    async def offered(self) -> list[Profile]:
        """What the user may launch."""
        names = [experiment.name for experiment in await self.experiments()]
        return (await asyncio.to_thread(self.catalogue)).for_experiments(names, self.groups_of_user())

    def _read_form(self, data: dict[str, list[Any]]) -> dict[str, str]:
        try:
            return request.options(data)
        except NotOffered as error:
            raise _refusal(str(error), error.reason) from error

    @choosing
    async def choose(self, options: dict[str, Any]) -> Launch:
        """Check a request and remember what it means as :attr:`launch`.

        What is kept as the user's options, and preselected the next time, is what was allowed: JupyterHub stores a
        request before anybody has looked at it.

        Raises:
            SpawnException: 400, with the reason in a sentence; never an error that JupyterHub counts.
        """
        self.launch = None
        self.steps = Steps()
        try:
            profile = await self._chosen(options)
            self.launch = resolve(profile, options, self.groups_of_user())
            self._keep(self.launch.options())
        except NotOffered as error:
            raise _refusal(str(error), error.reason) from error
        except DmspError as error:
            # A catalogue or configuration that cannot be read is an admin's affair, and must not end the hub.
            self.log.error("Nothing can be launched: %s", error)
            raise SpawnException(str(error), reason="catalogue", status_code=503) from error
        finally:
            if self.launch is None:
                self._keep(self._allowed)
        return self.launch

    def _keep(self, options: dict[str, Any]) -> None:
        """Make these the user's options; JupyterHub commits them, whether the start goes on or not."""
        self._allowed = self.user_options = dict(options)
        row = getattr(self, "orm_spawner", None)
        if row is not None:
            row.user_options = dict(options)

    async def _chosen(self, options: dict[str, Any]) -> Profile:
        if not isinstance(options, dict):
            raise _refusal("The options must be a mapping of names to values.", "option")
        name: str = getattr(self, "name", "")
        if name and not SERVER_NAME.fullmatch(name):
            raise _refusal("A server's name has small letters, digits and dashes, at most 30.", "name")
        wanted = options.get(request.PROFILE, "")
        if not isinstance(wanted, str):
            raise _refusal("The option `profile` must be the short name of a profile.")
        offered = await self.offered()
        if not offered:
            raise _refusal("No environment is open to your groups.")
        if not wanted:
            settings = await asyncio.to_thread(self.dmsp_settings)
            wanted = form.preselected(offered, "", settings.profiles.default)
        found = next((profile for profile in offered if profile.slug == wanted), None)
        if found is None:
            catalogue = await asyncio.to_thread(self.catalogue)
            if catalogue.get(wanted):
                raise _refusal(f"The profile {wanted} is not open to your groups.", "forbidden")
            raise _refusal(f"There is no profile {shown(wanted)}.")
        return found

    async def _render_form(self, spawner: Any) -> str:  # noqa: ARG002 - the hook's signature
        try:
            offered = await self.offered()
            settings = await asyncio.to_thread(self.dmsp_settings)
        except DmspError as error:
            self.log.error("The launch page has nothing to offer: %s", error)
            return form.render([], Settings(), notice=str(error))
        return await asyncio.to_thread(
            form.render,
            offered,
            settings,
            groups=self.groups_of_user(),
            last=self._last(),
            capacity=await self.capacity(),
            notice=await self.notice(),
        )

    def _last(self) -> dict[str, Any]:
        """What was launched last here; for a server that is new, what the user's own server launched."""
        name: str = getattr(self, "name", "")
        if name and not self._allowed:
            first = self.user.spawners.get("")
            return first._allowed if isinstance(first, ProfileSpawner) else {}
        return self._allowed

    async def notice(self) -> str:
        """A sentence above the cards; empty for none."""
        return keeping.farewell(self)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The steps of the start, for the hub's progress page."""
        async for event in self.steps:
            yield event


def _refusal(sentence: str, reason: str = "profile") -> SpawnException:
    return SpawnException(sentence, reason=reason, status_code=400)

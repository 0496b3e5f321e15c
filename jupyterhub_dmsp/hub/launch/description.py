"""What a session and its server are told about themselves, wherever they run. No Jupyter here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jupyterhub_dmsp.profiles.launch import Launch
from jupyterhub_dmsp.profiles.schema import Mode, Profile
from jupyterhub_dmsp.sandbox.bwrap import Identity
from jupyterhub_dmsp.settings import Experiment, Settings
from jupyterhub_dmsp.shared import dmsp_log

CONFIG = "/etc/dmsp"
"""Where a session finds what it is told."""


def runtime_of(who: Identity) -> str:
    """``XDG_RUNTIME_DIR`` of a session."""
    return f"/run/user/{who.uid}"


def variables(who: Identity, log_name: str, settings: Settings, site: str = "") -> dict[str, str]:
    """Environment variables that every session has; none of them is a secret.

    Args:
        who: the session's user.
        log_name: what its lines in the log are called, behind ``sessions/``.
        settings: ``dmsp.yaml``.
        site: what the lake calls the place; empty where it does not say.
    """
    runtime, log = runtime_of(who), settings.log
    made = {
        "USER": who.name,
        "LOGNAME": who.name,
        "HOME": who.home,
        "SHELL": who.shell,
        "LANG": "C.UTF-8",
        "XDG_RUNTIME_DIR": runtime,
        "JUPYTER_RUNTIME_DIR": f"{runtime}/jupyter",
        "DMSP_SESSION": f"{CONFIG}/session.json",
        "DMSP_RUNTIME": f"{runtime}/dmsp",
        "BEARER_TOKEN_FILE": f"{runtime}/bt_u{who.uid}",
        "RUCIO_CONFIG": f"{CONFIG}/rucio.cfg",
    }
    made |= dmsp_log.variables(f"sessions/{log_name}", log.format, log.of("sessions"))
    return made | ({"SITE_NAME": site} if site else {})


def mode_of(launch: Launch, settings: Settings) -> Mode:
    """How data reach a session: by a mount, or by download."""
    return launch.mode or settings.lake.mode


def describe(
    *,
    user: str,
    launch: Launch,
    experiments: Sequence[Experiment],
    settings: Settings,
    lake: Mapping[str, Any],
    token_url: str,
    environment: str = "",
) -> dict[str, Any]:
    """The content of ``/etc/dmsp/session.json``: what the lab side needs to know. No secret is in it.

    Args:
        user: name and account.
        launch: what is launched.
        experiments: the user's.
        settings: ``dmsp.yaml``.
        lake: what is known about the lake beyond the settings, such as ``rucio_url`` as sessions reach it.
        token_url: where the hub gives tokens for the lake.
        environment: folder of the profile's environment, as the session sees it.
    """
    known = {
        "name": settings.lake.name,
        "rucio_url": settings.lake.rucio_url,
        "auth_url": settings.lake.auth_url or settings.lake.rucio_url,
        "scratch_rse": settings.lake.scratch_rse,
        "mount": settings.lake.mount,
        "prefix": settings.lake.prefix,
        "rule_lifetime": settings.lake.rule_lifetime,
        "mode": mode_of(launch, settings),
        "site": "",
    }
    return {
        "user": user,
        "account": user,
        "profile": launch.profile.slug,
        "variant": launch.variant.name if launch.variant else "",
        "experiments": [experiment.name for experiment in experiments],
        "scopes": [scope for e in experiments for scope in e.scopes] + [f"user.{user}"],
        "lake": known | dict(lake),
        "token": {"url": token_url, "audience": next(iter(settings.identity.offered), "rucio")},
        "environment": environment,
        "idle": {"timeout": settings.idle.timeout_of(launch.profile.slug)},
    }


def kernel_options(profile: Profile) -> list[str]:
    """Options of a Jupyter server that offer the profile's kernels and no other."""
    names = [kernel.name for kernel in profile.kernels]
    return [
        f"--KernelSpecManager.allowed_kernelspecs={set(names)!r}",
        "--KernelSpecManager.ensure_native_kernel=False",
        f"--MultiKernelManager.default_kernel_name={names[0]}",
    ]

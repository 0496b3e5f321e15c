"""What a pod and its events say about a start: how far it is, where the server is, or why there will be none.

Pure: from the objects that the cluster tells of to sentences for people. A sentence is for whoever waits for the
session and names no node and no address; ``detail`` is the cluster's own text, for the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

AT_ONCE, SOON, ROOM_PATIENCE = 0.0, 15.0, 120.0
"""Seconds for which a fault has to last before the start is given up: some pass by themselves."""

PLACED, PULLED = 20, 60
"""Percent of a start from which on a pod has its node, and the image is there."""

ROOM = {"cpu": "cores", "memory": "memory", "ephemeral-storage": "disk space", "pods": "places for pods"}


@dataclass(frozen=True)
class Step:
    """How far a start is."""

    message: str
    percent: int

    @property
    def passed(self) -> frozenset[str]:
        """The stages that lie behind: ``scheduled`` on a node, image ``pulled``; for the metrics."""
        behind = {"scheduled": PLACED, "pulled": PULLED}
        return frozenset(stage for stage, percent in behind.items() if self.percent >= percent)


@dataclass(frozen=True)
class Fault:
    """Why there will be no session.

    Attributes:
        sentence: for people.
        detail: what the cluster says.
        patience: seconds for which it has to last.
        theirs: whether a user can do something about it, rather than an admin.
    """

    sentence: str
    detail: str = ""
    patience: float = AT_ONCE
    theirs: bool = False


def step(pod: Object, events: Iterable[Object]) -> Step:
    """The furthest that a pod has come, in words."""
    if _running(pod):
        return Step("Starting the server", 85)
    told = [(str(event.get("reason", "")), str(event.get("message", ""))) for event in events]
    placed = bool(pod["spec"].get("nodeName"))
    waits = _waits(pod, told, placed=placed)
    if waits:
        return waits
    reasons = [reason for reason, _ in told]
    if "Started" in reasons or _init_done(pod):
        return Step("Preparing the session", 70)
    if "Pulled" in reasons and reasons.count("Pulled") >= reasons.count("Pulling"):
        return Step("The image is there", PULLED)
    if "Pulling" in reasons:
        return Step(f"Fetching the image {_image(pod)}", 30)
    return (
        Step("A place in the cluster was found", PLACED)
        if placed
        else Step("Looking for a place in the cluster", 5)
    )


def _waits(pod: Object, told: list[tuple[str, str]], *, placed: bool) -> Step | None:
    if not placed:
        if any(reason == "TriggeredScaleUp" for reason, _ in told):
            return Step("The cluster is getting another node", 10)
        lacking = _condition(pod, "PodScheduled").get("reason") == "Unschedulable"
        return Step(f"Waiting for {_lacks(pod)}", 8) if lacking else None
    if told and told[-1][0] in ("FailedMount", "FailedAttachVolume"):
        return Step("Waiting for the session's folders to be mounted", 25)
    return None


def fault(pod: Object, room: float = ROOM_PATIENCE) -> Fault | None:
    """What keeps a pod from running; None while nothing does. ``room``: seconds to wait for a place."""
    ended = end(pod)
    if ended is not None:
        return ended
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Fault(
            f"The cluster has no room for this session: it waited for {_lacks(pod)}.",
            str(scheduled.get("message", "")),
            room,
            theirs=True,
        )
    for status in _statuses(pod):
        waiting = status.get("state", {}).get("waiting") or {}
        found = _stuck(
            str(waiting.get("reason", "")), str(waiting.get("message", "")), str(status.get("image"))
        )
        if found is not None:
            return found
    return None


def _stuck(reason: str, message: str, image: str) -> Fault | None:
    match reason:
        case "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError":
            return Fault(f"The image {image} cannot be fetched.", f"{reason}: {message}")
        case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
            return Fault("The session's container cannot be set up.", f"{reason}: {message}", SOON)
    return None


def end(pod: Object) -> Fault | None:
    """Why a pod has ended; None while it has not."""
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Fault("The session was ended because its node ran out of resources.", _text(status))
    for found in _statuses(pod):
        ended = found.get("state", {}).get("terminated")
        if not ended or (ended.get("exitCode") == 0 and status.get("phase") not in ("Failed", "Succeeded")):
            continue
        if ended.get("reason") == "OOMKilled":
            limit = _limit(pod)
            return Fault(
                f"The session was ended because it used more memory than its {limit}.",
                _text(ended),
                theirs=True,
            )
        if ended.get("exitCode") != 0:
            code = ended.get("exitCode")
            return Fault(f"The session's server ended by itself (exit code {code}).", _text(ended))
    if status.get("phase") == "Failed":
        return Fault("The session was ended by the cluster.", _text(status))
    if status.get("phase") == "Succeeded":
        return Fault("The session's server ended by itself.", _text(status))
    return None


def exit_code(pod: Object) -> int | None:
    """None while a pod runs or may run, else the code of its container; 1 when nobody knows."""
    if end(pod) is None:
        return None
    if pod["status"].get("phase") == "Succeeded":
        return 0
    codes = [found.get("state", {}).get("terminated", {}).get("exitCode", 0) for found in _statuses(pod)]
    return next((int(code) for code in codes if code), 1)


def address(pod: Object) -> str:
    """Where the pod is reached; empty until its containers run."""
    return str(pod["status"].get("podIP", "")) if _running(pod) else ""


def _running(pod: Object) -> bool:
    status = pod.get("status", {})
    started = [found.get("state", {}).get("running") for found in status.get("containerStatuses", ())]
    return status.get("phase") == "Running" and bool(started) and all(started)


def _init_done(pod: Object) -> bool:
    return _condition(pod, "Initialized").get("status") == "True"


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _condition(pod: Object, kind: str) -> Object:
    found = pod.get("status", {}).get("conditions", ())
    return next((condition for condition in found if condition["type"] == kind), {})


def _image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def _limit(pod: Object) -> str:
    """The memory limit as people say it."""
    mib = int(pod["spec"]["containers"][0]["resources"]["limits"]["memory"]) / 1024**2
    return f"{mib / 1024:g} GiB" if mib >= 1024 else f"{mib:g} MiB"


def _lacks(pod: Object) -> str:
    """What the scheduler is short of, out of its ``3 Insufficient memory``."""
    message = str(_condition(pod, "PodScheduled").get("message", ""))
    words = [name for key, name in ROOM.items() if f"Insufficient {key}" in message]
    if "Insufficient nvidia.com/" in message:
        words.append("graphics processors")
    if words:
        return f"free {' and '.join(words)}"
    return "its home folder" if "persistentvolumeclaim" in message.lower() else "a node that may take it"


def _text(status: Object) -> str:
    return ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))

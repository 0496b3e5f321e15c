"""Which files of an attachment do not arrive, and why: asked for when somebody wants to know, never in a poll."""

from __future__ import annotations

from jupyterhub_dmsp.lab.flow import Flow, NotLanded
from jupyterhub_dmsp.lake.models import Failure
from jupyterhub_dmsp.scratch.mount import MountGone

MOST = 50
"""Files that are named; of the others their number is told."""


async def failures_of(flow: Flow) -> tuple[list[Failure], int]:
    """The first :data:`MOST` of the files that do not arrive, each with its reason, and how many there are in all.

    Raises:
        LakeError: Rucio does not answer.
    """
    attachment = flow.attachment
    if attachment.state == "stuck" and attachment.rule_id:
        found = await flow.tools.client.failures(attachment.rule_id)
    elif attachment.state == "failed" and (attachment.error or {}).get("code") == NotLanded.code:
        found = await _not_landed(flow)
    else:
        found = []
    return found[:MOST], len(found)


async def _not_landed(flow: Flow) -> list[Failure]:
    """What Rucio counts as delivered and is not on the mount, or not as it should be."""
    files = flow.files or await flow.tools.records.content(flow.attachment.id)
    try:
        look = await flow.tools.mount.look(flow.wanted_of(files))
    except MountGone:
        return []
    reasons: dict[str, list[int]] = {
        "It is not on scratch.": look.absent,
        "On scratch it has another size than in the data lake.": look.wrong,
        "You may not read it on scratch.": look.refused,
    }
    return [Failure(files[i].did, reason) for reason, positions in reasons.items() for i in positions]

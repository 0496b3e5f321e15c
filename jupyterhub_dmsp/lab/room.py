"""How much room a user has on scratch, for the sentences about having none."""

from __future__ import annotations

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lake.client import RucioClient
from jupyterhub_dmsp.lake.errors import LakeError, QuotaExceeded


async def room_left(client: RucioClient, rse: str, code: str) -> int | None:
    """Bytes that the user's quota, or scratch, has left; None when the lake does not say."""
    if code == QuotaExceeded.code:
        mine = next((one for one in await client.usage(client.account) if one.rse == rse), None)
        if mine is None or mine.limit is None:
            return None
        return None if mine.limit < 0 else max(0, mine.limit - mine.bytes)
    room = await client.room(rse)
    return None if room is None else room.free


async def with_numbers(error: LakeError, client: RucioClient, rse: str, needed: int) -> LakeError:
    """The refusal of a rule for want of room, with how much is needed and how much there is."""
    try:
        free = await room_left(client, rse, error.code)
    except DmspError:
        return error
    if free is None:
        return error
    whose = "your quota on scratch has" if isinstance(error, QuotaExceeded) else "scratch has"
    return type(error)(
        f"{error.message} It needs {in_words(needed)}, {whose} {in_words(free)} left.",
        error.remedy,
        error.reason,
    )


def in_words(size: int) -> str:
    """Bytes as people read them."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"

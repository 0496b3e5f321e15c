"""Whether somebody else can enter a user's server: then its tokens would be theirs too."""

from __future__ import annotations

from typing import Any

from jupyterhub import orm

ACCESS = "access:servers"


def shared(db: Any, user: orm.User, server: str) -> str:
    """Why a server is not its owner's alone, as the end of a sentence; empty when it is.

    Three ways lead in: a share, an invitation to one (a share code, which anybody may redeem at any moment), and a
    role of the hub's configuration that names this user's servers. Who may enter *all* servers is an admin, whom the
    hub has to trust anyway.
    """
    spawner = user.orm_spawners.get(server)
    if spawner is not None:
        for kind, why in (
            (orm.Share, "is shared with others"),
            (orm.ShareCode, "is open to whoever has its code"),
        ):
            found = db.query(kind).filter(kind.spawner_id == spawner.id)
            if any(not one.expired and _opens(one.scopes) for one in found):
                return why
    named = {f"{ACCESS}!user={user.name}", f"{ACCESS}!server={user.name}/{server}"}
    for role in db.query(orm.Role):
        if named.intersection(role.scopes) and _others(role, user):
            return "can be entered by others"
    return ""


def _opens(scopes: list[str]) -> bool:
    return any(scope.partition("!")[0] == ACCESS for scope in scopes)


def _others(role: orm.Role, user: orm.User) -> bool:
    """Whether anybody else has this role; services are the configuration's own doing."""
    people = {one.name for one in role.users} | {one.name for group in role.groups for one in group.users}
    return bool(people - {user.name})

"""Who may do what in the embedded Rucio: ``generic``, and four rules of ours.

- Data of a restricted scope may be replicated (and put into collections) only by members of its experiment:
  accounts with the attribute ``experiment-<name>``. Data of a ``user.<name>`` scope only by that account.
- Only admins say that a file is on an RSE, in whatever call that can be said.
- The owner of a rule may extend, boost, comment and delete it; ``generic`` leaves that to admins.
- An account with the attribute ``provisioner`` manages the accounts of users (never those of services or admins).

Rucio answers a ``TypeError`` from here with ``generic``'s word, which says yes more often: :func:`has_permission`
lets none out.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rucio.common.config import config_get
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.account import has_account_attribute
from rucio.core.permission import generic
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType
from sqlalchemy import select, tuple_

from .schema import NAME

LOGGER = logging.getLogger("policy")
MEMBER = "experiment-"
#: What the owner of a rule may change about it.
OWN_RULE_OPTIONS = frozenset({"lifetime", "boost_rule", "purge_replicas", "comment", "cancel_requests", "meta"})
#: The content of the collection that ``add_did`` makes, which Rucio does not tell its policy: the server's
#: application does. None: nobody told, and it may be anything.
CONTENT: contextvars.ContextVar[Sequence[dict[str, Any]] | None] = contextvars.ContextVar(
    "content", default=None
)
#: The RSE on which ``add_did`` says the files of a new collection are; Rucio does not tell that either.
PLACE: contextvars.ContextVar[str | None] = contextvars.ContextVar("place", default=None)
_PROTECTED = ("admin", "provisioner")
_HOME = "user."
_NO_REPLICAS = "Only administrators may say where files are."

Check = Callable[[InternalAccount, dict[str, Any], Any], Any]


def has_permission(issuer: InternalAccount, action: str, kwargs: dict[str, Any], session: Any) -> Any:
    """Rucio's entry: whether ``issuer`` may do ``action``; a ``PermissionResult`` with a reason, or a bool."""
    try:
        return _decide(issuer, action, kwargs, session)
    except (TypeError, KeyError, AttributeError) as error:
        LOGGER.exception("the policy failed for %s", action)
        return _no(f"The policy of this lake failed: {type(error).__name__}.")


def _decide(issuer: InternalAccount, action: str, kwargs: dict[str, Any], session: Any) -> Any:
    if not generic.perm_default(issuer, kwargs, session=session):  # neither root nor an admin
        restriction = _RESTRICTIONS.get(action)
        refusal = restriction(issuer, kwargs, session) if restriction else ""
        if refusal:
            return _no(refusal)
        grant = _GRANTS.get(action)
        if grant is not None and grant(issuer, kwargs, session):
            return True
    return generic.has_permission(issuer, action, kwargs, session=session)


def _no(reason: str) -> Any:
    # Rucio imports this module while it imports the one that has the class.
    from rucio.core.permission import PermissionResult

    return PermissionResult(False, reason)


# --- restricted scopes ---------------------------------------------------------------------------------------


@functools.cache
def restricted_scopes() -> dict[str, str]:
    """Scope to the experiment whose members may use it, from ``[dmsp] scopes``."""
    text = config_get("dmsp", "scopes", raise_exception=False, default="{}", check_config_table=False)
    return {str(scope): str(experiment) for scope, experiment in json.loads(text).items()}


def _foreign(issuer: InternalAccount, scopes: Iterable[str], session: Any) -> str:
    """Why the account may not use data of these scopes; empty when it may."""
    scopes, restricted = set(scopes), restricted_scopes()
    if any(scope.startswith(_HOME) and scope != _HOME + issuer.external for scope in scopes):
        return "Only its owner may use the data of a user's own scope."
    for experiment in sorted({restricted[scope] for scope in scopes if scope in restricted}):
        if not has_account_attribute(issuer, MEMBER + experiment, session=session):
            return f"Only members of {experiment} may use its data."
    return ""


def _external(scope: Any) -> str:
    return str(getattr(scope, "external", scope))


def _scopes_below(dids: Iterable[tuple[str, str]], vo: str, session: Any) -> set[str]:
    """The scopes of everything in these collections, however deep."""
    content = models.DataIdentifierAssociation
    start = [(InternalScope(scope, vo=vo), name) for scope, name in dids]
    if not start:
        return set()
    below = (
        select(content.child_scope, content.child_name)
        .where(tuple_(content.scope, content.name).in_(start))
        .cte("below", recursive=True)
    )
    deeper = select(content.child_scope, content.child_name).join(
        below, (content.scope == below.c.child_scope) & (content.name == below.c.child_name)
    )
    below = below.union(deeper)
    return {_external(row[0]) for row in session.execute(select(below.c.child_scope).distinct())}


def _uses_foreign(issuer: InternalAccount, dids: Iterable[dict[str, Any]], session: Any) -> str:
    """Why the account may not use these DIDs, or something in them; empty when it may."""
    named = [(_external(did["scope"]), str(did["name"])) for did in dids]
    refusal = _foreign(issuer, {scope for scope, _ in named}, session)
    return refusal or _foreign(issuer, _scopes_below(named, issuer.vo, session), session)


def _replicates_foreign(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    return _uses_foreign(issuer, kwargs["dids"], session)


# A rule on a collection follows what is attached to it later, so what is attached is looked at as deeply as what a
# rule is made for.


def _attaches(issuer: InternalAccount, attachments: Sequence[dict[str, Any]], session: Any) -> str:
    if any(_says_where(one) for one in attachments):
        return _NO_REPLICAS
    return _uses_foreign(issuer, [did for one in attachments for did in one.get("dids") or []], session)


def _says_where(attachment: dict[str, Any]) -> bool:
    """Whether files are to be attached *and* registered on an RSE: Rucio then asks no leave for the replicas."""
    return any(attachment.get(key) is not None for key in ("rse", "rse_id"))


def _attaches_foreign(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    return _attaches(issuer, [kwargs.get("attachment") or {}], session)


def _attaches_many_foreign(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    return _attaches(issuer, kwargs.get("attachments") or [], session)


def _refuses_did(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    if PLACE.get() is not None:
        return _NO_REPLICAS
    return _samples_foreign(issuer, kwargs, session)


def _samples_foreign(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    del kwargs
    content = CONTENT.get()
    if content is None:
        return _foreign(issuer, restricted_scopes(), session)
    return _uses_foreign(issuer, content, session)


def _refuses_replicas(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    """``generic`` lets everybody add replicas where an RSE's name ends in SCRATCHDISK and the like."""
    del issuer, kwargs, session
    return _NO_REPLICAS


def _refuses_dids(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    for did in kwargs["dids"]:  # Rucio checks the names of single DIDs, not those of a list
        if not re.match(NAME["pattern"], str(did["name"])):
            return "A name may hold letters, digits and / . - _ and must not lead out of its directory."
    return _attaches(issuer, kwargs["dids"], session)


def _changes_foreign_rule(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> str:
    rule = _rule(kwargs, session)
    if rule is None or not {"lifetime", "boost_rule"} & set(kwargs.get("options") or {}):
        return ""
    lifetime = kwargs["options"].get("lifetime")
    if lifetime is not None and lifetime <= 0:
        return ""  # who has left an experiment may still give its data back
    return _uses_foreign(issuer, [{"scope": rule.scope, "name": rule.name}], session)


_RESTRICTIONS: dict[str, Callable[[InternalAccount, dict[str, Any], Any], str]] = {
    "add_rule": _replicates_foreign,
    "attach_dids": _attaches_foreign,
    "attach_dids_to_dids": _attaches_many_foreign,
    "add_did": _refuses_did,
    "add_dids": _refuses_dids,
    "add_replicas": _refuses_replicas,
    "create_did_sample": _samples_foreign,
    "update_rule": _changes_foreign_rule,
}


def _rule(kwargs: dict[str, Any], session: Any) -> Any:
    try:
        return session.get(models.ReplicationRule, uuid.UUID(str(kwargs["rule_id"])).hex)
    except ValueError:
        return None  # no rule has such an id


# --- owners and the provisioner ------------------------------------------------------------------------------


def _owns_rule(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    rule = _rule(kwargs, session)
    return rule is not None and rule.account == issuer


def _may_update(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    return set(kwargs.get("options") or {}) <= OWN_RULE_OPTIONS and _owns_rule(issuer, kwargs, session)


def _provisions(issuer: InternalAccount, session: Any) -> bool:
    return bool(has_account_attribute(issuer, "provisioner", session=session))


def _is_plain_user(account: InternalAccount, session: Any) -> bool:
    row = session.get(models.Account, account)
    if row is None or row.account_type != AccountType.USER:
        return False
    return not any(has_account_attribute(account, key, session=session) for key in _PROTECTED)


def _target(issuer: InternalAccount, kwargs: dict[str, Any]) -> InternalAccount:
    account = kwargs["account"]
    return account if isinstance(account, InternalAccount) else InternalAccount(str(account), vo=issuer.vo)


def _manages_user(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    return _provisions(issuer, session) and _is_plain_user(_target(issuer, kwargs), session)


def _makes_user(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    return kwargs["type"] == "USER" and _provisions(issuer, session)


def _identifies_user(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    return str(kwargs["type"]).upper() == "OIDC" and _manages_user(issuer, kwargs, session)


def _makes_home_scope(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    account = _target(issuer, kwargs)
    return _external(kwargs["scope"]) == f"user.{account.external}" and _manages_user(issuer, kwargs, session)


def _marks_member(issuer: InternalAccount, kwargs: dict[str, Any], session: Any) -> bool:
    return str(kwargs["key"]).startswith(MEMBER) and _manages_user(issuer, kwargs, session)


_GRANTS: dict[str, Callable[[InternalAccount, dict[str, Any], Any], bool]] = {
    "update_rule": _may_update,
    "del_rule": _owns_rule,
    "add_account": _makes_user,
    "add_account_identity": _identifies_user,
    "del_account_identity": _manages_user,
    "add_scope": _makes_home_scope,
    "add_attribute": _marks_member,
    "del_attribute": _marks_member,
    "set_local_account_limit": _manages_user,
    "delete_local_account_limit": _manages_user,
    "get_local_account_usage": _manages_user,
}

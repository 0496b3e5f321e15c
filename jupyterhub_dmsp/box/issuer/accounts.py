"""The demo accounts: names, passwords made once, and the users file that the issuer reads.

Three places, so that each reader gets only what it needs:

``secrets/user-<name>.password``
    the password itself, 0600, for ``dmsp users``; edit it and run :func:`ensure_users` to change a password.
``secrets/subjects.json``
    ``{name: sub}``. ``sub`` is random, never derived from the name, and never changes: Rucio's identities
    are bound to it. A user who is taken out and comes back gets the same one.
``issuer/users.json``
    what the issuer knows: claims and argon2 hashes, never a password.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import argon2
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from jupyterhub_dmsp.box.files import Owner, private_directory, write_private
from jupyterhub_dmsp.box.issuer.config import ConfigError, check_private
from jupyterhub_dmsp.settings import User

# No 0 O 1 l I: people read these aloud. 31^16 is 79 bits.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
GROUPS, GROUP_LENGTH = 4, 4
SUBJECTS = "subjects.json"
# OWASP's first recommendation for argon2id (19 MiB, 2 passes, 1 lane): a class that logs in at once neither takes
# a small machine's memory nor its cores. The generated passwords are random anyway.
HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Account(BaseModel):
    """A user as the issuer knows it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sub: str
    full_name: str
    email: str
    groups: list[str]
    password_hash: str

    def get_user_id(self) -> str:
        """The subject; Authlib asks for it under this name."""
        return self.sub

    def __repr__(self) -> str:
        return f"Account({self.name})"


_ACCOUNTS = TypeAdapter(list[Account])


def new_password() -> str:
    """A random password that can be read and typed, such as ``k7mw-x2pd-9hqv-tn4e``."""
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
    return "-".join(groups)


def verify(password_hash: str, password: str) -> bool:
    """Compare a password with its hash: some 30 ms of CPU, so never in an event loop."""
    try:
        return HASHER.verify(password_hash, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


@cache
def decoy_hash() -> str:
    """A hash that no password fits: checking it makes an unknown user cost what a known one costs."""
    return HASHER.hash(secrets.token_urlsafe(32))


def subjects(secrets_dir: Path) -> dict[str, str]:
    """The subject identifier of every user that ever was, by name."""
    path = secrets_dir / SUBJECTS
    if not path.exists():
        return {}
    check_private(path)
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ConfigError(f"The file {SUBJECTS} is damaged.", "Restore it from a backup.") from error


def password_file(secrets_dir: Path, name: str) -> Path:
    """Where the password of a user is kept."""
    return secrets_dir / f"user-{name}.password"


def read_passwords(secrets_dir: Path, names: Iterable[str]) -> dict[str, str]:
    """The passwords of these users, for ``dmsp users``; raises :class:`ConfigError` when one is missing."""
    passwords = {}
    for name in names:
        path = password_file(secrets_dir, name)
        check_private(path)
        passwords[name] = path.read_text(encoding="utf-8").strip()
        if not passwords[name]:
            raise ConfigError(f"The password file of {name} is empty.", f"Remove {path.name} and start again.")
    return passwords


def load(users_file: Path) -> dict[str, Account]:
    """The accounts of a users file, by name."""
    check_private(users_file)
    try:
        accounts = _ACCOUNTS.validate_json(users_file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        # A validation error quotes its input, and that is hashes: keep it out of the sentence.
        raise ConfigError(
            f"The users file {users_file.name} is damaged.", "`dmsp up` writes it anew."
        ) from error
    return {account.name: account for account in accounts}


def ensure_users(
    users: Iterable[User], secrets_dir: Path, users_file: Path | None = None, owner: Owner | None = None
) -> dict[str, str]:
    """Give every user a password and a subject, and write the users file for the issuer.

    Idempotent: what is there stays. Blocks for some 30 ms a user (argon2), so call it in a thread.

    Args:
        users: ``settings.box.users``.
        secrets_dir: the box's ``secrets/``.
        users_file: what the issuer reads; ``issuer/users.json`` beside ``secrets_dir`` when None.
        owner: uid and gid of the issuer, when it runs as a user of its own.

    Returns:
        The password of each user, by name.
    """
    users = list(users)
    users_file = users_file or secrets_dir.parent / "issuer" / "users.json"
    private_directory(secrets_dir)
    private_directory(users_file.parent, owner)
    known = _ensure_subjects([user.name for user in users], secrets_dir)
    for user in users:
        if not password_file(secrets_dir, user.name).exists():
            write_private(password_file(secrets_dir, user.name), new_password() + "\n")
    passwords = read_passwords(secrets_dir, (user.name for user in users))
    before = load(users_file) if users_file.exists() else {}
    accounts = [_account(user, known[user.name], passwords[user.name], before.get(user.name)) for user in users]
    if list(before.values()) != accounts or not users_file.exists():
        text = json.dumps([account.model_dump() for account in accounts], indent=1)
        write_private(users_file, text + "\n", owner)
    return passwords


def _ensure_subjects(names: list[str], secrets_dir: Path) -> dict[str, str]:
    known = subjects(secrets_dir)
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: str(uuid.uuid4()) for name in missing}
        write_private(secrets_dir / SUBJECTS, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known


def _account(user: User, sub: str, password: str, before: Account | None) -> Account:
    keep = before is not None and verify(before.password_hash, password)
    return Account(
        name=user.name,
        sub=sub,
        full_name=user.full_name or user.name,
        email=user.email or f"{user.name}@localhost",
        groups=list(user.groups),
        password_hash=before.password_hash if keep and before else HASHER.hash(password),
    )

"""Schema, accounts, storage elements and scopes of the embedded Rucio: makes what is missing, takes nothing away.

``python -m dmsp_rucio.bootstrap`` reads the plan (JSON, with the passwords) from its standard input and can run any
number of times. The plan is made by ``jupyterhub_dmsp.box.rucio.config.Plan.document``.
"""

from __future__ import annotations

import configparser
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import rucio.db.sqla
from alembic import command
from alembic.config import Config
from rucio.common.config import config_get
from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import IdentityError, IdentityNotFound
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account as accounts
from rucio.core import account_limit, distance, identity, rse, scope
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType, DatabaseOperationType, IdentityType
from rucio.db.sqla.session import db_session, get_engine
from rucio.db.sqla.util import build_database, create_base_vo, is_old_db
from sqlalchemy import delete, inspect, select, update

import dmsp_log

from .tool import SCHEME

#: The storage as the daemons reach it. Clients never see this scheme where they have another choice: Rucio offers
#: them only schemes that it knows.
STORAGE_IMPL = "dmsp_rucio.protocol.Posix"
#: The mount in a session. The download client chooses a protocol by scheme in the domain ``wan``, whatever domain the
#: PFN came from (so each scheme must be unique in its RSE), and imports its implementation.
SESSION_SCHEME, SESSION_HOST = "file", "session"
SESSION_IMPL = "rucio.rse.protocols.posix.Default"
#: Exit code for a database of another version; called again with ``upgrade`` in the plan it is brought up to date.
OTHER_VERSION = 3
_NOTHING = {"read": None, "write": None, "delete": None}
_ALL = {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}


def main() -> int:
    """Bring the database to what the plan says; 0 when it is there, 1 with a sentence on stderr when it cannot be."""
    dmsp_log.start("bootstrap")
    plan = json.load(sys.stdin)
    _schema()
    if is_old_db():
        if not plan.get("upgrade"):
            print("The database was made by another version of Rucio.", file=sys.stderr)  # noqa: T201
            return OTHER_VERSION
        _upgrade()
    with db_session(DatabaseOperationType.WRITE) as session:
        for name, account in plan["accounts"].items():
            _account(name, account, session)
    with db_session(DatabaseOperationType.WRITE) as session:
        ids = {entry["name"]: _storage_element(entry, session) for entry in plan["rses"]}
        _distances(list(ids.values()), session)
        for name in plan["scopes"]:
            _scope(name, session)
    return 0


def _schema() -> None:
    """Make the tables. The base VO comes last: it says that the making was not interrupted."""
    engine = get_engine()
    if not inspect(engine).has_table(models.AlembicVersion.__tablename__):
        _point_alembic_at_migrations()
        build_database()  # creates what does not exist yet, so a broken attempt is completed
    with db_session(DatabaseOperationType.READ) as session:
        missing = session.execute(select(models.VO.vo)).first() is None
    if missing:
        create_base_vo()


def _upgrade() -> None:
    """Bring the tables of an earlier Rucio up to date, with Rucio's own migrations."""
    _point_alembic_at_migrations()
    command.upgrade(Config(config_get("alembic", "cfg", check_config_table=False)), "head")


def _point_alembic_at_migrations() -> None:
    path = Path(config_get("alembic", "cfg", check_config_table=False))
    parser = configparser.RawConfigParser()
    parser.read(path)
    parser.set("alembic", "script_location", str(Path(rucio.db.sqla.__path__[0], "migrate_repo")))
    url = str(config_get("database", "default", check_config_table=False)).replace("%", "%%")
    parser.set("alembic", "sqlalchemy.url", url)
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(descriptor, "w") as file:
        parser.write(file)


def _account(name: str, wanted: dict[str, Any], session: Any) -> None:
    account = InternalAccount(name, vo=DEFAULT_VO)
    if not accounts.account_exists(account, session=session):
        accounts.add_account(account, AccountType[wanted["type"]], f"{name}@localhost", session=session)
    _password(name, account, wanted["password"], session)
    for key, value in wanted["attributes"].items():
        if not accounts.has_account_attribute(account, key, session=session):
            accounts.add_account_attribute(account, key, value, session=session)


def _password(name: str, account: InternalAccount, password: str, session: Any) -> None:
    kind = IdentityType.USERPASS
    try:
        identity.verify_identity(name, kind, password, session=session)
    except IdentityNotFound:  # the secret was made anew: let the new one in and the old one out
        table = models.Identity
        fresh = f"{name}-{uuid.uuid4().hex}"
        identity.add_identity(fresh, kind, "", password, session=session)
        made = session.execute(select(table.salt, table.password).where(table.identity == fresh)).one()
        session.execute(
            update(table)
            .where(table.identity == name, table.identity_type == kind)
            .values(salt=made.salt, password=made.password)
        )
        session.execute(delete(table).where(table.identity == fresh))
    except IdentityError:
        identity.add_identity(name, kind, f"{name}@localhost", password, session=session)
    if not identity.exist_identity_account(name, kind, account, session=session):
        identity.add_account_identity(name, kind, account, f"{name}@localhost", default=True, session=session)


def _storage_element(entry: dict[str, Any], session: Any) -> str:
    if rse.rse_exists(entry["name"], vo=DEFAULT_VO, session=session):
        rse_id = rse.get_rse_id(entry["name"], vo=DEFAULT_VO, session=session)
    else:
        rse_id = rse.add_rse(entry["name"], vo=DEFAULT_VO, deterministic=True, session=session)
    for protocol in _protocols(entry):
        _protocol(str(rse_id), protocol, session)
    attributes: dict[str, Any] = {"verify_checksum": True, "greedyDeletion": True}
    if entry.get("site"):
        attributes["site"] = entry["site"]
    present = rse.list_rse_attributes(rse_id, session=session)
    for key, value in attributes.items():
        if present.get(key) != value:
            if key in present:
                rse.del_rse_attribute(rse_id, key, session=session)
            rse.add_rse_attribute(rse_id, key, value, session=session)
    root = InternalAccount("root", vo=DEFAULT_VO)
    account_limit.set_local_account_limit(root, rse_id, -1, session=session)
    return str(rse_id)


def _protocols(entry: dict[str, Any]) -> list[dict[str, Any]]:
    storage: dict[str, Any] = {
        "scheme": SCHEME,
        "hostname": "localhost",
        "port": 0,
        "prefix": entry["prefix"],
        "impl": STORAGE_IMPL,
        "domains": {"wan": dict(_ALL), "lan": dict(_NOTHING)},
    }
    if not entry.get("mount"):
        return [storage]
    storage["domains"]["wan"]["read"] = None
    session = {
        "scheme": SESSION_SCHEME,
        "hostname": SESSION_HOST,
        "port": 0,
        "prefix": entry["mount"],
        "impl": SESSION_IMPL,
        "domains": {"wan": {**_NOTHING, "read": 1}, "lan": {**_NOTHING, "read": 1}},
    }
    return [storage, session]


def _protocol(rse_id: str, wanted: dict[str, Any], session: Any) -> None:
    table = models.RSEProtocol
    rows = session.execute(
        select(table).where(
            table.rse_id == rse_id, table.scheme == wanted["scheme"], table.hostname == wanted["hostname"]
        )
    ).scalars()
    for row in rows:
        if row.prefix == wanted["prefix"] and row.impl == wanted["impl"]:
            return
        rse.del_protocols(rse_id, row.scheme, hostname=row.hostname, port=row.port, session=session)
        session.flush()
    rse.add_protocol(rse_id, dict(wanted), session=session)


def _distances(ids: list[str], session: Any) -> None:
    for source in ids:
        for destination in ids:
            known = distance.get_distances(source, destination, session=session)
            if source != destination and not known:
                distance.add_distance(source, destination, distance=1, session=session)


def _scope(name: str, session: Any) -> None:
    if not scope.check_scope(InternalScope(name, vo=DEFAULT_VO), session=session):
        owner = InternalAccount("root", vo=DEFAULT_VO)
        scope.add_scope(InternalScope(name, vo=DEFAULT_VO), owner, session=session)


if __name__ == "__main__":
    sys.exit(main())

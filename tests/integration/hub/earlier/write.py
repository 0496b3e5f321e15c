"""Runs with an earlier JupyterHub: makes its database, with what a hub has after some use. Prints a token."""

from __future__ import annotations

import sys

from jupyterhub import orm, roles
from jupyterhub._version import __version__

assert __version__.startswith("5."), __version__
db = orm.new_session_factory(f"sqlite:///{sys.argv[1]}")()
for role in roles.get_default_roles():
    roles.create_role(db, role)
user = orm.User(name="km3net-user")
group = orm.Group(name="/dmsp/km3net", users=[user])
spawner = orm.Spawner(user=user, name="", state={"key": "kept"}, user_options={"profile": "everybody"})
client = orm.OAuthClient(identifier="jupyterhub", secret="", redirect_uri="", description="JupyterHub")
db.add_all([user, group, spawner, client])
db.commit()
roles.assign_default_roles(db, user)
print(user.new_api_token(note="of an earlier hub"))
db.commit()

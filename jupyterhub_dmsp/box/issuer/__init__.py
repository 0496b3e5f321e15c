"""The embedded OIDC issuer: who the users of a box are, as a real OpenID provider with WLCG tokens.

This package's front (what is imported here) is for the box and needs neither tornado nor Authlib; the server
itself runs as ``python -m jupyterhub_dmsp.box.issuer --config <file>``.

How it is built:

- ``web.py``, ``pages.py``: tornado handlers, thin.
- ``protocol.py``, ``grants.py``, ``exchange.py``, ``endpoints.py``: Authlib's authorization server and our grants.
- ``store.py``: SQLite. **One worker thread** owns the connection and runs every protocol step, so the event
  loop never waits for a disk, a rotation is atomic against its own race without any lock, and what was
  answered is on disk: WAL with ``synchronous=NORMAL`` outlives ``kill -9`` (a power cut may lose the last moments,
  which costs a login).
- ``keys.py``: the signing key. It persists, since Rucio caches the JWKS for 12 hours.

Decisions:

- **Refresh tokens rotate** (RFC 9700 section 4.14). A token's successor is derived from it with a keyed hash, so a
  client whose answer got lost, or two requests of the same moment, can present the *same* token again within
  ``refresh_grace`` seconds and get the *same* successor, although only hashes are stored. Once the successor was
  used, or the grace is over, the old one is a sign of theft: the whole family is revoked, access tokens included.
- **Exchange** (RFC 8693): only a token issued to the asking client, only to audiences of its list, scope narrows
  only, no refresh token, and the result never outlives its subject token: an exchange cannot prolong anything.
- **Revocation** reaches access tokens at our own endpoints (userinfo, introspection, exchange). A resource server
  that verifies tokens by itself, such as Rucio, accepts them to their end: keep their lifetime short.
- **Logout** ends the browser's session. Refresh tokens are there for offline access and outlive it.
"""

from jupyterhub_dmsp.box.issuer.accounts import ensure_users, read_passwords, subjects
from jupyterhub_dmsp.box.issuer.config import Client, Config, ConfigError, Lifetimes
from jupyterhub_dmsp.box.issuer.control import command, demo_clients, ensure_secret, ready, write_config

__all__ = [
    "Client",
    "Config",
    "ConfigError",
    "Lifetimes",
    "command",
    "demo_clients",
    "ensure_secret",
    "ensure_users",
    "read_passwords",
    "ready",
    "subjects",
    "write_config",
]

# ruff: noqa: E501 - a table is read by its columns
"""What the attacker's browser does, and what the platform itself does with files that they planted.

These need cookies, redirects and restarts: the integration test performs them, by the same names.
"""

from __future__ import annotations

from attacks.model import Try

_XSRF = "a token in the request must equal the cookie's"


def _try(name: str, what: str, why: str, control: str = "victim", where: str = "browser") -> Try:
    return Try(name, where, what, why, control)


TRIES = [
    _try("lab-api", "the other's Lab API with the own cookies", "the hub tells that server who asks"),
    _try("lab-files", "a file of the other through their Lab", "the same"),
    _try("lab-data", "the other's attachments through their Lab", "the same"),
    _try("lab-websocket", "the websocket of the other's kernel", "the same"),
    _try("lab-oauth", "let the hub vouch for oneself to the other's server (OAuth)", "no right to access that server"),
    _try("path-confusion", "the other's server by `..`, `%2e%2e`, `%2f`, `//` and `;` in the path",
         "whatever the proxy makes of it, that server asks who it is"),
    _try("hub-stop", "stop the other's server", "a user's cookie reaches that user alone"),
    _try("hub-form", "start a server for the other by the launch form", "the same"),
    _try("hub-xsrf", "send a request of the other's browser from another site (without XSRF token)", _XSRF),
    _try("lab-xsrf", "the same to the other's Lab", _XSRF),
    _try("open-redirect", "send somebody to another site after the login (`next=//…`)", "only own paths are followed"),
    _try("forwarded-host", "lead redirects elsewhere by `X-Forwarded-Host`, `Forwarded` and `Host`", "addresses are relative",
         "own"),
    _try("share", "share the own server, to lure others to it", "nobody has the right to share", "admin"),
    _try("login-csrf", "log somebody in as oneself from another site", "XSRF cookie and `Origin`", "own"),
    _try("device-csrf", "have somebody's browser approve a device code", "XSRF cookie and `Origin`", "own"),
    _try("redirect-uri", "have the issuer send a code elsewhere", "only registered addresses", "own"),
    _try("introspect", "ask the issuer about somebody's token", "needs a client's secret", "root"),
    _try("exchange", "exchange a token at the issuer as the hub does", "needs the hub's secret", "root"),
    _try("content-path", "read `/etc/passwd` and the like through Lab's contents API", "paths stay below the home", "own"),
    _try("did-path", "attach names with `..`, `%2e%2e`, NUL, newline, `<script>`",
         "refused, or shown under a safe name inside `~/datasets`", "own"),
    _try("variable-name", "a variable name that is code", "must be an identifier", "own"),
    _try("planted-links", "symbolic links in home and runtime directory that root might follow at stop and start",
         "root opens nothing below them, or refuses links", "root", "restart"),
]  # fmt: skip

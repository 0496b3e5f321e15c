"""A user's Jupyter server, started faster and without secrets in its environment.

``python -I -m jupyterhub_dmsp.hub.singleuser [options of jupyterhub-singleuser]``

The hub's token comes in a file, is kept in this process's memory and reaches neither kernels nor terminals.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from jupyterhub_dmsp.hub import logs, quiet
from jupyterhub_dmsp.hub.headers import LAB

TOKEN_FILE = "hub-token"  # noqa: S105 - a file's name
UNUSED = ("jupyter_lsp", "notebook_shim")
"""Server extensions that Lab brings along: language servers, of which none is there, and the old notebook's paths."""

SILENT = ("@jupyterlab/apputils-extension:announcements", "@jupyterlab/lsp-extension")
"""Lab's plugins that ask for what is not here: news from outside (a question to every new user), language servers."""


def take_token() -> str:
    """Read the token that the hub left in the runtime directory, and remove the file."""
    path = Path(os.environ["XDG_RUNTIME_DIR"], TOKEN_FILE)
    token = path.read_text().strip()
    path.unlink()
    return token


def defaults(token: str, log: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the server that options on the command line may still change; ``log``: see :mod:`.logs`."""
    return {
        "Application": dict(log),
        # In memory only: the environment of this process is what kernels and terminals inherit.
        "HubOAuth": {"api_token": token},
        "LabApp": {
            "extension_manager": "readonly",
            "news_url": None,
            "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        },
        "ServerApp": {
            "jpserver_extensions": dict.fromkeys(UNUSED, False),
            # Not a login shell: /etc/profile would put the machine's PATH in place of the profile's.
            "terminado_settings": {"shell_command": ["/bin/bash"]},
            "tornado_settings": {
                "headers": dict(LAB),
                # The hub hands its own options on for the login cookies; this one is Jupyter Server's.
                "xsrf_cookie_kwargs": json.loads(os.environ.get("JUPYTERHUB_COOKIE_OPTIONS", "{}")),
            },
        },
    }


def run(argv: list[str]) -> None:
    """Start the server and serve until it is told to end."""
    # jsonschema imports this module when it is there, which builds a grammar: half of the CPU time of a start.
    cast(dict[str, Any], sys.modules)["rfc3987_syntax"] = None
    from jupyterhub_dmsp.identity.hub_source import set_session_api_token

    log = logs.start("session", os.environ.get("USER", ""))
    token = take_token()
    quiet.install()
    set_session_api_token(token)

    from jupyter_server.extension.application import ExtensionApp
    from jupyter_server.serverapp import ServerApp
    from jupyterhub.singleuser.extension import JupyterHubSingleUser
    from traitlets.config import Config

    logs.adopt(ServerApp, ExtensionApp)
    server = JupyterHubSingleUser.initialize_server(argv=argv, config=Config(defaults(token, log)))
    silence(server.web_app.settings)
    server.start()


def silence(settings: dict[str, Any]) -> None:
    """Have every page of Lab come without :data:`SILENT`, after whatever else looks at its configuration."""
    before = settings.get("page_config_hook")

    def hook(handler: Any, page_config: dict[str, Any]) -> dict[str, Any]:
        found = before(handler, page_config) if before else page_config
        return {**found, "disabledExtensions": [*found.get("disabledExtensions", []), *SILENT]}

    settings["page_config_hook"] = hook


def main() -> NoReturn:
    """Entry point. Ends with :func:`os._exit`: idle worker threads would hold a finished server for a minute."""
    code = 0
    try:
        run(sys.argv[1:])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001 - said in the log, then the process ends in any case
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()

"""The Jupyter Server extension: reads the session, starts the service, adds the handlers."""

from __future__ import annotations

import os
from pathlib import Path

from jupyter_server.extension.application import ExtensionApp
from traitlets import Float, Int, List, Unicode

from jupyterhub_dmsp import tracing
from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.lab.activity import Activity
from jupyterhub_dmsp.lab.handlers import lab_handlers
from jupyterhub_dmsp.lab.service import Service, let_kernels_import
from jupyterhub_dmsp.lab.session import (
    LakeInfo,
    Session,
    TokenInfo,
    data_directory,
    idle_info,
    load,
    runtime_directory,
)
from jupyterhub_dmsp.lab.socket import KernelSocket


class DmspLab(ExtensionApp):
    """The data lake in a Jupyter server. In a session of the hub everything comes from ``$DMSP_SESSION``."""

    name = "jupyterhub_dmsp"
    extension_url = "/dmsp/v1/status"
    load_other_extensions = True

    rucio_url = Unicode("", help="Rucio server, without a hub.").tag(config=True)
    auth_url = Unicode("", help="Rucio authentication server; `rucio_url` when empty.").tag(config=True)
    account = Unicode("", help="Rucio account, without a hub.").tag(config=True)
    token_file = Unicode("", help="File with a bearer token, without a hub. Read again when it changes.").tag(
        config=True
    )
    token_command = List(Unicode(), help="Command that prints a bearer token, without a hub.").tag(config=True)
    lake_name = Unicode("Data lake", help="Shown at the root of the tree, without a hub.").tag(config=True)
    scratch_rse = Unicode("SCRATCH", help="RSE to which data are attached, without a hub.").tag(config=True)
    mount = Unicode("/scratch/lake", help="Where that RSE is mounted, without a hub.").tag(config=True)
    prefix = Unicode("", help="Prefix of the RSE's PFNs that the mount replaces, without a hub.").tag(
        config=True
    )
    rule_lifetime = Int(14 * 86400, help="Seconds that data stay on scratch, without a hub.").tag(config=True)
    activity_interval = Float(
        0,
        help="Seconds between two looks at what goes on; 0: by the time after which the hub ends idle sessions.",
    ).tag(config=True)
    scopes = List(Unicode(), help="Scopes to show; empty for all, without a hub.").tag(config=True)

    def session(self) -> Session:
        """The session, from the hub's file or from the traits; raises :class:`DmspError`."""
        path = os.environ.get("DMSP_SESSION", "")
        if path:
            return load(Path(path))
        if not self.rucio_url or not self.account:
            raise DmspError(
                "The data lake is not configured.",
                "Set DmspLab.rucio_url, DmspLab.account and DmspLab.token_file.",
            )
        let_kernels_import()
        return Session(
            account=self.account,
            scopes=tuple(self.scopes) or None,
            lake=LakeInfo(
                name=self.lake_name,
                rucio_url=self.rucio_url,
                auth_url=self.auth_url,
                scratch_rse=self.scratch_rse,
                mount=self.mount,
                prefix=self.prefix,
                rule_lifetime=self.rule_lifetime,
            ),
            token=TokenInfo(file=self.token_file, command=tuple(self.token_command)),
        )

    def initialize_settings(self) -> None:
        """Make the service; without a session the rest of Jupyter goes on and the log says why."""
        self._service: Service | None = None
        self._socket: KernelSocket | None = None
        self._activity: Activity | None = None
        server = self.serverapp
        if server is None:
            return
        tracing.log_like(server.log)
        runtime: Path | None = None
        try:
            runtime = runtime_directory()
            os.environ["DMSP_RUNTIME"] = str(runtime)
            session = self.session()
            if session.lake.mode != "replica":
                raise DmspError(
                    f"`lake.mode: {session.lake.mode}` is not supported by this version.", "Use `replica`."
                )
            logger = server.event_logger
            self._service = Service(session, runtime, data_directory(), Path(server.root_dir), logger)
        except DmspError as error:
            self.log.error("The data lake is not available: %s", error)
        else:
            self.settings["dmsp_service"] = self._service
            server.io_loop.add_callback(self._begin)
        # Also without the lake: nobody's work is to be ended as idle.
        interval = self.activity_interval or idle_info().interval
        self._activity = Activity(server.web_app.settings, runtime, self._service, interval)
        server.io_loop.add_callback(self._activity.start)

    def initialize_handlers(self) -> None:
        """Add the REST interface; without a service it answers 503."""
        if self.serverapp is not None:
            self.handlers.extend(lab_handlers("/"))

    async def _begin(self) -> None:
        if self._service is None:
            return
        self._socket = KernelSocket(self._service)
        self._socket.start()
        try:
            await self._service.start()
        except DmspError as error:
            self.log.error("The data lake did not start: %s", error)

    async def stop_extension(self) -> None:
        """Called by Jupyter Server when it ends."""
        if self._activity is not None:
            self._activity.stop()
        if self._socket is not None:
            await self._socket.stop()
        if self._service is not None:
            await self._service.stop()

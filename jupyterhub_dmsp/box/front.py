"""The public address, held by the box itself: it answers from the first second on, whatever happens to the proxy.

Two sockets listen at the address, a group that shares its port (``SO_REUSEPORT``, socket(7)). The first is ours: behind
it is a page that says what the box waits for. The second is the proxy's, made by us for each of its starts and handed
over. Which of the two gets a new connection is decided by a filter of one instruction
(``SO_ATTACH_REUSEPORT_CBPF``): ours, until the proxy has read its routes. So nobody meets a closed port, or a proxy
that knows no address yet and says "not found". A proxy that dies takes its socket with it, and the kernel gives
everything to ours at once.

The same page is at an inner address, for the proxy: it shows it while the hub does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import html
import logging
import shlex
import socket
import struct
from collections.abc import Callable, Sequence
from string import Template
from typing import Any

from jupyterhub_dmsp.errors import DmspError

#: ``asm-generic/socket.h``; Python's ``socket`` does not name it.
_SO_ATTACH_REUSEPORT_CBPF = 51
#: ``BPF_RET | BPF_K``: the whole program is "return k" (linux/filter.h, bpf_common.h).
_RETURN = 0x06
_OURS, _PROXY = 0, 1
_BACKLOG = 4096
#: What is read of a request: enough for the headers of a browser. The answer does not depend on anything but Accept.
_HEAD = 16384
_HEAD_TIMEOUT = 2.0
_RETRY = 2
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

log = logging.getLogger("dmsp.box")

_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="$retry">
<title>One moment · $site</title>
<link rel="icon" href="data:,">
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; display: grid; min-height: 100vh; place-items: center }
main { max-width: 34rem; padding: 2rem }
h1 { font-size: 1.4rem }
</style>
</head>
<body>
<main>
<p>$site</p>
<h1>One moment</h1>
<p role="status">$sentence</p>
<p>This page tries again by itself every $retry seconds. Open notebooks keep what they have.</p>
</main>
</body>
</html>
"""
)


def sentence(report: dict[str, Any]) -> str:
    """What the box waits for, in words, from what its supervisor last published."""
    parts = report.get("parts", [])
    missing = [part for part in parts if part["state"] != "healthy"]
    if "ready_seconds" not in report:
        count = f": {len(parts) - len(missing)} of {len(parts)} parts are ready" if parts else ""
        busy = next((part for part in missing if part["state"] != "waiting"), None)
        now = f" Now: {' '.join(filter(None, (busy['title'], busy['detail'])))}." if busy else ""
        return f"The platform is starting{count}.{now}"
    if not missing:
        return "A part of the platform is being started again."  # its end was not noticed yet
    asked = next((part for part in missing if part["name"] in ("proxy", "hub")), missing[0])
    if asked["state"] == "failed":
        return f"{asked['title']} has failed and is tried again every minute; the admins see why in its log."
    return f"{asked['title']} is being started again."


def handed(command: Sequence[str], name: str) -> list[str]:
    """The command line that takes a listening socket as its standard input and hands it to a program.

    In the way of systemd's socket activation: descriptor 3, told of in the environment (sd_listen_fds(3)). A shell does
    it, because only the program's own process knows its number in its namespace.
    """
    script = f'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={shlex.quote(name)} exec "$@" 3<&0 </dev/null'
    return ["/bin/sh", "-c", script, "sh", *command]


class FrontDoor:
    """Holds the public address of a box.

    Args:
        site: name of the site, for the page.
        host: IPv4 address of both.
        public: port that people open.
        inner: port at which the proxy finds the page.
        report: gives what the supervisor last published.

    Attributes:
        page: URL of the page, for the proxy.
    """

    def __init__(
        self, site: str, host: str, *, public: int, inner: int, report: Callable[[], dict[str, Any]]
    ) -> None:
        self.page = f"http://{host}:{inner}/"
        self._site = site
        self._public = (host, public)
        self._inner = (host, inner)
        self._report = report
        self._ours: socket.socket | None = None
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Listen at both addresses; raises :class:`DmspError` when that cannot be."""
        try:
            # A port that is shared lets in anybody of the same user: so see first that nobody has it.
            _bound(self._public, shared=False).close()
            self._ours = _bound(self._public, shared=True)
            self.to_page()
            for listener in (self._ours, _bound(self._inner, shared=False)):
                self._servers.append(await asyncio.start_server(self._answer, sock=listener, backlog=_BACKLOG))
        except OSError as error:
            port = self._public[1]
            raise DmspError(
                f"Port {port} cannot be held: {error.strerror}.", "Choose another one with --port."
            ) from error

    def listener(self) -> socket.socket:
        """A socket for the proxy's next start; it gets no connection before :meth:`to_proxy`."""
        self.to_page()
        made = _bound(self._public, shared=True)
        made.listen(_BACKLOG)
        return made

    def to_proxy(self) -> None:
        """New connections go to the proxy."""
        self._choose(_PROXY)

    def to_page(self) -> None:
        """New connections get the page."""
        self._choose(_OURS)

    def _choose(self, index: int) -> None:
        """Sockets of a group are counted in the order in which they began to listen; ours is the first."""
        assert self._ours is not None, "not open"
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, index))
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        self._ours.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)

    def close(self) -> None:
        """Give the addresses back."""
        for server in self._servers:
            server.close()
        self._servers = []
        self._ours = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The same for every request: not now, and why."""
        head = b""
        try:
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT)
            writer.write(self._response(browser=b"text/html" in head[:_HEAD]))
            await asyncio.wait_for(writer.drain(), _HEAD_TIMEOUT)
        except (OSError, TimeoutError) as error:
            log.debug("the page could not be shown: %s", error)
        finally:
            writer.close()

    def _response(self, *, browser: bool) -> bytes:
        why = sentence(self._report())
        if browser:
            kind = "text/html"
            text = _PAGE.substitute(site=html.escape(self._site), sentence=html.escape(why), retry=_RETRY)
        else:
            kind, text = "text/plain", f"{why}\n"
        body = text.encode()
        head = (
            "HTTP/1.1 503 Service Unavailable",
            f"Content-Type: {kind}; charset=utf-8",
            f"Content-Length: {len(body)}",
            f"Retry-After: {_RETRY}",
            "Cache-Control: no-store",
            f"Content-Security-Policy: {_POLICY}",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
            "Connection: close",
        )
        return "\r\n".join([*head, "", ""]).encode() + body


def _bound(address: tuple[str, int], *, shared: bool) -> socket.socket:
    """A TCP socket at this address that does not listen yet."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made

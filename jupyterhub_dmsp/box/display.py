"""What ``dmsp up`` shows: a line for each part as it comes up, then the address and the demo users."""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

SIGNS = {
    "waiting": ("·", "dim"),
    "preparing": ("…", "cyan"),
    "starting": ("…", "cyan"),
    "healthy": ("✓", "green"),
    "unhealthy": ("!", "yellow"),
    "failed": ("✗", "red"),
    "stopping": ("…", "yellow"),
    "stopped": ("·", "dim"),
}


def users_table(users: list[dict[str, Any]]) -> Table:
    """The demo users with their passwords and groups."""
    table = Table(box=None, header_style="bold")
    for heading in ("user", "password", "groups"):
        table.add_column(heading)
    for user in users:
        table.add_row(user["name"], Text(user["password"]), " ".join(user["groups"]))
    return table


class Progress:
    """Live lines on a terminal, one line for each change elsewhere (a log, CI)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: dict[str, tuple[str, str, str, float]] = {}
        self._begin = time.monotonic()
        self._live: Live | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def set(self, name: str, title: str, state: str, detail: str = "") -> None:
        """Show a part's state; lines that say nothing new are left out where there is no terminal."""
        with self._lock:
            before = self._lines.get(name)
            if before is not None and before[1:3] == (state, detail):
                return
            begun = before[3] if before and before[1] in ("preparing", "starting") else time.monotonic()
            self._lines[name] = (title, state, detail, begun)
        if self._live is None and state not in ("waiting", "starting"):
            seconds = time.monotonic() - self._begin
            self.console.print(
                f"{seconds:6.1f} s  {SIGNS[state][0]} {title}: {detail or state}", highlight=False, markup=False
            )

    def _draw(self) -> RenderableType:
        rows = []
        for title, state, detail, begun in list(self._lines.values()):
            sign, style = SIGNS[state]
            row = Text(f" {sign} ", style=style)
            row.append(f"{title:<28}", style="default")
            text = detail or state
            if state in ("preparing", "starting"):
                text += f" {time.monotonic() - begun:.0f} s"
            row.append(text, style=style)
            rows.append(row)
        return Group(*rows)

    def say(self, text: str | RenderableType) -> None:
        """A line of its own, below the parts."""
        self.console.print(text, highlight=False)

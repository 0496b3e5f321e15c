"""The Jupyter Server side: thin handlers over the lake, the attachment manager, events, and a socket for kernels."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where Jupyter Server finds the extension (imported late: a kernel's start must not pay for it)."""
    from jupyterhub_dmsp.lab.extension import DmspLab

    return [{"module": "jupyterhub_dmsp.lab", "app": DmspLab}]

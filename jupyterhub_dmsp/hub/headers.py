"""Headers and cookie options of the hub and of a user's server, as OWASP's cheat sheets ask. Imports no Jupyter."""

from __future__ import annotations

from typing import Any

_BOTH = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}

HUB = {
    **_BOTH,
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            # JupyterHub's own pages carry inline scripts and styles.
            "script-src 'self' 'unsafe-inline'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    # Pages carry tokens in forms, and new API tokens in plain sight.
    "Cache-Control": "no-store",
    "Server": "JupyterHub",
}
"""Headers of the hub's pages."""

LAB = {
    **_BOTH,
    "Content-Security-Policy": "; ".join(
        (
            # Lab compiles schemas, and outputs of notebooks (plots, widgets, JSROOT) run scripts of their own and
            # fetch what they need from https sites.
            "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: https:",
            "style-src 'self' 'unsafe-inline' https:",
            "img-src 'self' data: blob: https:",
            "font-src 'self' data: https:",
            "connect-src 'self' data: blob: https: wss:",
            "media-src 'self' data: blob: https:",
            "worker-src 'self' blob:",
            "frame-src 'self' data: blob: https:",
            "object-src 'self' blob:",  # the viewer of PDF files
            "base-uri 'self'",
            "form-action 'self'",
            # Not 'self': all users' pages have the same origin.
            "frame-ancestors 'none'",
        )
    ),
    "Server": "Jupyter",
}
"""Headers of every answer of a user's server. Its API adds ``default-src 'none'``, its files a sandbox."""

COOKIES = {"SameSite": "Lax"}
"""For every cookie: never sent with requests that another site makes, but with links that lead here."""


def cookies(public_url: str) -> dict[str, Any]:
    """Options for the hub's cookies; ``Secure`` where people come by https, whoever terminates it."""
    return {**COOKIES, "Secure": True} if public_url.startswith("https:") else dict(COOKIES)

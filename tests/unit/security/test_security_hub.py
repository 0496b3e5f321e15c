"""What the hub keeps to itself, without a hub."""

from __future__ import annotations

import logging

import pytest
from jupyterhub import _xsrf_utils

from jupyterhub_dmsp.hub import headers, quiet


def test_the_sessions_id_stays_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    quiet.install()
    quiet.install()
    log = _xsrf_utils.app_log
    assert sum(isinstance(one, quiet.WithoutIds) for one in log.filters) == 1
    record = log.makeRecord(
        log.name, logging.INFO, _xsrf_utils.__file__, 1, "cookie %r %r", (b"id", {"path": "/"}), None
    )
    with caplog.at_level(logging.INFO, log.name):
        log.handle(record)
    assert caplog.messages == ["cookie '[secret]' {'path': '/'}"]


def test_cookies_are_secure_where_people_come_by_https() -> None:
    assert headers.cookies("https://vre.example/") == {"SameSite": "Lax", "Secure": True}
    assert headers.cookies("http://127.0.0.1:8000/") == {"SameSite": "Lax"}

"""Ids of requests: which are taken, how they travel, how they stand in logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from jupyterhub_dmsp import tracing


@pytest.fixture(autouse=True)
def own_factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    with tracing.use(""):  # what a test enters must not be the next one's
        yield
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize("text", ["abcd", "0f3c9a1d", "browser-0f3c.9_1D", "a" * 64])
def test_what_is_an_id(text: str) -> None:
    assert tracing.valid(text)
    assert tracing.enter(text) == text


@pytest.mark.parametrize(
    "text", [None, "", "abc", "a" * 65, "-abc", "a b c d", "abcd\n", "ab[rid=x]", "%s%s%s", "äöüß", "abcd\x1b"]
)
def test_what_is_none(text: str | None) -> None:
    made = tracing.enter(text)
    assert made != text
    assert tracing.valid(made)


async def test_it_goes_along_with_tasks_and_no_further() -> None:
    async def request(identity: str) -> dict[str, str]:
        tracing.enter(identity)
        return await asyncio.create_task(later())

    async def later() -> dict[str, str]:
        await asyncio.sleep(0)
        return tracing.headers()

    found = await asyncio.gather(*(asyncio.create_task(request(f"request-{n}")) for n in range(5)))
    assert found == [{"X-Request-ID": f"request-{n}"} for n in range(5)]


def test_log_lines_end_in_it(caplog: pytest.LogCaptureFixture) -> None:
    tracing.mark_logs()
    tracing.mark_logs()
    log = logging.getLogger("test.tracing")
    with caplog.at_level("INFO"):
        with tracing.use("request-1"):
            log.info("100%% of %s", "it")
            log.info("100% plain")
            log.info({"not": "a text"})
        with tracing.use(""):
            log.info("nobody's")
    assert [record.getMessage() for record in caplog.records] == [
        "100% of it [rid=request-1]",
        "100% plain [rid=request-1]",
        "{'not': 'a text'}",
        "nobody's",
    ]


def test_own_modules_log_where_the_application_does() -> None:
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    application = logging.Logger("application")
    application.addHandler(Handler())
    for _ in range(2):
        tracing.log_like(application, "test.ours")
    with tracing.use(""):
        logging.getLogger("test.ours.room").info("said")
    logging.getLogger("test.ours.room").debug("not said")
    assert written == ["said"]

"""All lines of one request, of all logs, in order of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_dmsp.box.follow import lines_of
from jupyterhub_dmsp.errors import DmspError

HUB = """\
[I 2026-11-22 22:00:00.100 JupyterHub log:192] 200 GET /hub/ [rid=other-id]
[I 2026-11-22 22:00:02.500 JupyterHub token:117] token: user=a kept [rid=the-id]
[I 2026-11-22 22:00:03.000 JupyterHub app:1] nobody's
"""
RUCIO = """\
[2026-11-22 22:00:02,900 +0000] [6] [INFO] GET /scopes/ 200 [rid=the-id]
[2026-11-22 22:00:02,100 +0000] [6] [INFO] GET /scopes/ 200 [rid=the-id-and-more]
"""
SESSION = """\
[W 2026-11-22 22:00:01.000 ServerApp] failed [rid=the-id]
    Traceback (most recent call last):
      ValueError
[I 2026-11-22 22:00:01.500 ServerApp] another
    line of it
"""
OLDER = "[I 2026-11-22 21:00:00.000 JupyterHub x] long ago [rid=the-id]\n"


def test_lines_in_order_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sessions").mkdir()
    (tmp_path / "hub.log").write_text(HUB)
    (tmp_path / "hub.log.1").write_text(OLDER)
    (tmp_path / "rucio.log").write_bytes(RUCIO.encode() + b"\xff\xfe no text\n")
    (tmp_path / "sessions" / "a.log").write_text(SESSION)
    found = lines_of(tmp_path, "the-id")
    assert [line.log for line in found] == ["hub", "sessions/a", "hub", "rucio"]
    assert [line.text.count("\n") for line in found] == [0, 2, 0, 0], (
        "what follows without a time belongs to it"
    )
    assert found[1].text.endswith("ValueError")
    assert lines_of(tmp_path, "unknown-id") == []


@pytest.mark.parametrize("text", ["", "[rid", "a b c d", "x" * 65, "../../etc"])
def test_what_is_no_id(tmp_path: Path, text: str) -> None:
    with pytest.raises(DmspError, match="not the id of a request"):
        lines_of(tmp_path, text)

"""An attachment manager on a lake of paper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from paperlake import DS, Bench, Paper

from jupyterhub_dmsp.lab import flow as flow_module
from jupyterhub_dmsp.lake.did import Did
from jupyterhub_dmsp.lake.models import LakeFile, Rule


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(flow_module, "FIRST_POLL", 0.01)
    monkeypatch.setattr(flow_module, "LONGEST_POLL", 0.05)
    files = [LakeFile(Did("dmsp", f"f{i}"), 10, "0a") for i in range(3)]
    rule = Rule("rule1", DS, "me", "SCRATCH", "REPLICATING", 0, 3, 0, "", 2e9, 1e9)
    bench = Bench(tmp_path, Paper(files, rule))
    yield bench
    await bench.close()

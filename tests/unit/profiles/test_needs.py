"""What profiles need of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_dmsp.profiles import catalogue, needs


def test_root_is_refused_without_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = catalogue.load(Path(__file__).parents[3] / "profiles")
    root, minimal = profiles.get("root"), profiles.get("minimal")
    assert root is not None
    assert minimal is not None
    monkeypatch.setattr(needs, "HEADERS", tmp_path)
    needs.check(minimal)
    with pytest.raises(needs.NeedMissing, match=r"ROOT needs the C\+\+ headers.*apt install g\+\+"):
        needs.check(root)

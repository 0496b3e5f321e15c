"""A small real lock, and places that every user of the machine can reach."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_dmsp.profiles import catalogue
from jupyterhub_dmsp.profiles.environments import EnvironmentSpec
from jupyterhub_dmsp.profiles.kernels import Kernel


@pytest.fixture
def spec(tmp_path: Path) -> EnvironmentSpec:
    """Two packages, so that a build takes a second; pinned as the shipped profile ``minimal`` pins them."""
    text = (catalogue.default_path() / "minimal" / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9-])", text)
    lock = tmp_path / "requirements.lock"
    lock.write_text("\n".join(b for b in blocks if re.match(r"(packaging|idna)==", b)) + "\n")
    kernel = Kernel(name="python3", display_name="Python 3", language="python")
    return EnvironmentSpec("small", lock, "3.11", (kernel,))


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder for environments that other users can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="dmsp-envs-"))
    folder.chmod(0o755)
    yield folder / "envs"
    shutil.rmtree(folder)

"""The tutorial, as it is printed: every block of code, and the output that it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from boxes import Box
from visitor import Visitor

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "tutorials" / "first-steps.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)


async def test_every_block(box: Box) -> None:
    """Python in one notebook's kernel, with `events` bound as the sidebar binds it; shell in a terminal."""
    async with Visitor(box.address, "km3net-user", box.passwords["km3net-user"]) as visitor:
        await visitor.start("km3net")
        attached = await visitor.attach("km3net:mc.numu-CC.genhen.offline", variable="events")
        assert attached["state"] == "ready", attached
        kernel = await visitor.kernel(path="tutorial.ipynb")
        binding = {"notebook": "tutorial.ipynb", "variable": "events", "attachment": attached["id"]}
        status, bound = await visitor.lab("PUT", "dmsp/v1/bindings", json=binding)
        assert status == 200, bound
        await kernel.run(bound["code"]["python"])
        output = ""
        for language, code in BLOCKS:
            if language == "python":
                output = await kernel.run(code)
            elif language == "text":
                assert output.strip() == code.strip()
            elif code.startswith("make "):
                assert re.search(rf"^{code.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)
            else:
                for line in code.strip().splitlines():
                    status, said = await visitor.terminal(line)
                    assert status == 0, f"{line}: {said}"
        await visitor.stop()
    assert {language for language, _ in BLOCKS} == {"sh", "python", "text"}

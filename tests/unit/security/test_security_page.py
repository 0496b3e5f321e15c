"""The security page and the tries of the attack test say the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import attacks
from attacks import browsing
from attacks.model import program

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "security.md"


def test_page_has_the_table_of_all_tries() -> None:
    text = PAGE.read_text()
    assert attacks.table() in text, "print(attacks.table()) gives the table"
    assert f"{len(attacks.TRIES)} ways" in text


def test_every_try_is_whole_and_there_are_enough() -> None:
    assert len(attacks.TRIES) >= 45
    assert max(Counter(one.id for one in attacks.TRIES).values()) == 1
    for one in attacks.TRIES:
        assert one.where in ("terminal", "kernel", "browser", "restart"), one.id
        assert one.control in ("victim", "own", "root", "admin"), one.id
        assert one.what, one.id
        assert one.why, one.id
        assert "|" not in one.what + one.why, one.id
    performed = {name.replace("_", "-") for name, value in vars(browsing).items() if callable(value)}
    assert {one.id for one in attacks.browser.TRIES} <= performed


def test_code_of_tries_is_python() -> None:
    assert all(one.code for one in attacks.PLAIN)
    compile(program(attacks.PLAIN, "{}"), "tries", "exec")

"""What a check says."""

from __future__ import annotations

import pytest

from jupyterhub_dmsp.box.integrity.report import KINDS, OUTCOMES, Problem, Report
from jupyterhub_dmsp.lab.room import in_words
from jupyterhub_dmsp.lake.models import Rule, rule_meta

ROW = {
    "id": "r",
    "scope": "dmsp",
    "name": "ds",
    "account": "me",
    "rse_expression": "SCRATCH",
    "state": "OK",
    "locks_ok_cnt": 1,
    "locks_replicating_cnt": 0,
    "locks_stuck_cnt": 0,
}


def test_clean_and_not() -> None:
    report = Report("SCRATCH", files=3, bytes=3_000_000)
    assert report.clean
    assert list(report.lines()) == ["SCRATCH: 3 files, 3.0 MB, all as the catalogue says."]
    report.problems = [Problem("short", "a/b", "It is short.", "dmsp:x", "cured")]
    assert report.clean
    assert list(report.lines())[-1].endswith("all problems are solved.")
    report.problems.append(Problem("dark", "a/c", "Nobody knows it."))
    assert not report.clean
    assert list(report.lines())[-1].endswith("1 problems are left.")
    assert report.as_dict()["counts"] == {"short": 1, "dark": 1}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_outcome_has_words(kind: str, outcome: str) -> None:
    report = Report("SCRATCH", problems=[Problem(kind, "a", "T.", outcome=outcome)])
    assert OUTCOMES[outcome] in "\n".join(report.lines())
    assert report.clean == (outcome in ("cured", "removed", "fixed"))


@pytest.mark.parametrize(
    ("meta", "until"),
    [
        ('{"dmsp": {"in_use_until": 17}}', 17.0),
        ({"dmsp": {"in_use_until": 17.5}, "theirs": 1}, 17.5),
        ('"{\\"dmsp\\": {\\"in_use_until\\": 17}}"', 17.0),
        (None, 0.0),
        ("", 0.0),
        ("not json", 0.0),
        ("[1]", 0.0),
        ('{"dmsp": 3}', 0.0),
        ('{"dmsp": {"in_use_until": "x"}}', 0.0),
    ],
)
def test_anything_may_stand_in_a_rules_metadata(meta: object, until: float) -> None:
    assert Rule.of({**ROW, "meta": meta}).in_use_until == until
    assert isinstance(rule_meta(meta), dict)


def test_the_announced_end_of_a_rule() -> None:
    assert Rule.of(ROW).ends_at is None
    assert Rule.of({**ROW, "eol_at": "Sun, 22 Nov 2026 12:00:00 UTC"}).ends_at == 1795348800


def test_sizes_in_words() -> None:
    assert [in_words(n) for n in (0, 999, 1000, 5_000_000, 12 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "5.0 MB",
        "12.0 TB",
    ]

"""dmsp.yaml: what is accepted, and the sentence for each thing that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_dmsp import settings
from jupyterhub_dmsp.errors import DmspError


def test_defaults_are_the_demo() -> None:
    s = settings.load(None)
    assert [e.name for e in s.experiments] == ["dmsp", "km3net", "collider"]
    assert {u.name for u in s.box.users} == {"km3net-user", "collider-user", "vre-admin"}


def test_members_and_open_experiments() -> None:
    s = settings.load(None)
    assert [e.name for e in s.experiments_of({"/dmsp/km3net"})] == ["dmsp", "km3net"]
    assert [e.name for e in s.experiments_of(set())] == ["dmsp"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"lakes": {}}, "`lakes` is not a known key."),
        ({"lake": {"moun": "/x"}}, "`lake.moun` is not a known key."),
        ({"lake": {"mount": "relative"}}, "`lake.mount`"),
        ({"lake": {"mode": "teleport"}}, "'replica' or 'download'"),
        ({"lake": {"rule_lifetime": "soon"}}, "`lake.rule_lifetime`"),
        ({"lake": {"rule_lifetime": 1}}, "greater than or equal to 60"),
        ({"lake": {"rucio_url": "not a url"}}, "`lake.rucio_url`"),
        ({"identity": {"client_secret": "hunter2"}}, "must be a reference"),
        ({"identity": []}, "`identity`"),
        ({"experiments": [{"name": "A B"}]}, "`experiments.0.name`"),
        ({"experiments": [{"name": "a"}, {"name": "a"}]}, "a name stands twice"),
        (
            {"experiments": [{"name": "a", "scopes": ["s"]}, {"name": "b", "scopes": ["s"]}]},
            "one experiment only",
        ),
        ({"experiments": [{}]}, "`experiments.0.name` is missing."),
        (
            {"experiments": [{"name": "e" * 20}]},
            "`experiments.0.name` string should have at most 19 characters",
        ),
        (
            {"box": {"users": [{"name": "u" * 21}]}},
            "`box.users.0.name` string should have at most 20 characters",
        ),
        ({"box": {"users": [{"name": "Upper"}]}}, "`box.users.0.name`"),
        ({"reana": {"enabled": True}}, "is enabled and has no url"),
        ({"box": {"users": [{"name": "a-b"}, {"name": "a-b"}]}}, "names a user twice"),
        ({"log": {"level": "loud"}}, "`log.level` input should be 'debug', 'info', 'warning' or 'error'"),
        ({"log": {"format": "xml"}}, "`log.format` input should be 'text' or 'json'"),
        ({"log": {"levels": {"hib": "debug"}}}, "`log.levels.hib` input should be 'box', 'database'"),
        ({"log": {"levels": {"hub": "loud"}}}, "`log.levels.hub` input should be 'debug'"),
        (["a"], "the file must be a mapping"),
    ],
)
def test_each_fault_is_one_sentence(data: object, sentence: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        settings.parse(data)
    assert sentence in str(caught.value)
    assert len(caught.value.faults) == 1
    assert "hunter2" not in str(caught.value), "a value that may be a secret is not repeated"


def test_a_part_may_have_a_level_of_its_own() -> None:
    made = settings.parse({"log": {"level": "warning", "levels": {"hub": "debug"}}}).log
    assert (made.of("hub"), made.of("rucio")) == ("debug", "warning")
    assert settings.Settings().log.of("hub") == "info"


def test_the_longest_names_fit_into_rucio() -> None:
    made = settings.parse({"experiments": [{"name": "e" * 19}], "box": {"users": [{"name": "u" * 20}]}})
    assert len(f"experiment-{made.experiments[0].name}") == 30
    assert len(f"user.{made.box.users[0].name}") == 25


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(settings.SettingsError) as caught:
        settings.parse({"lake": {"a": 1, "b": 2}, "site": {"name": ""}})
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"a: [", "is not YAML: line 1"), (b"\xff\xfe\x00", "is not UTF-8"), (b"\t- a", "is not YAML")],
)
def test_broken_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "dmsp.yaml"
    file.write_bytes(content)
    with pytest.raises(settings.SettingsError, match=sentence):
        settings.load(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="cannot be read: No such file"):
        settings.load(tmp_path / "none.yaml")


def test_secrets_are_read_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").write_text("hush\n")
    monkeypatch.setenv("DMSP_TEST_SECRET", "quiet")
    assert settings.read_secret(f"file:{tmp_path}/s") == "hush"
    assert settings.read_secret("env:DMSP_TEST_SECRET") == "quiet"
    with pytest.raises(DmspError, match="not set"):
        settings.read_secret("env:DMSP_TEST_NOT_THERE")
    with pytest.raises(DmspError, match="cannot be read"):
        settings.read_secret("file:/nonexistent/secret")


def test_schema_describes_every_key() -> None:
    schema = settings.json_schema()
    for name, section in schema["$defs"].items():
        for key, value in section["properties"].items():
            assert "description" in value, f"{name}.{key} has no description"

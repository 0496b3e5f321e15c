"""The catalogue: what is accepted, what is refused with which sentence, who sees what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from jupyterhub_dmsp.profiles import catalogue
from jupyterhub_dmsp.profiles.catalogue import CatalogueError
from jupyterhub_dmsp.profiles.kernels import Kernel, write_kernelspecs

LOCK = """ipykernel==7.4.0 \\
    --hash=sha256:00
    # via -r requirements.in
numpy==2.4.6 \\
    --hash=sha256:01
pip==26.3 \\
    --hash=sha256:02
"""
GOOD = {
    "name": "Deep Sea",
    "description": "For neutrinos.",
    "experiments": ["km3net"],
    "python": "3.11",
    "kernels": [{"name": "python3", "display_name": "Python 3", "language": "python"}],
    "highlights": ["numpy"],
}
NOTEBOOK = {"cells": [], "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}


def make(
    root: Path, slug: str = "deep-sea", lock: str = LOCK, notebook: object = NOTEBOOK, **change: object
) -> Path:
    folder = root / slug
    folder.mkdir(parents=True)
    data = {key: value for key, value in (GOOD | change).items() if value is not None}
    (folder / "profile.yaml").write_text(yaml.safe_dump(data))
    (folder / "requirements.lock").write_text(lock)
    (folder / "smoke.ipynb").write_text(json.dumps(notebook))
    return folder


def faults(root: Path, **known: object) -> list[str]:
    with pytest.raises(CatalogueError) as error:
        catalogue.load(root, **known)  # type: ignore[arg-type]
    return error.value.faults


def test_profile_is_read_with_its_folder(tmp_path: Path) -> None:
    make(tmp_path)
    (profile,) = catalogue.load(tmp_path, {"km3net"})
    assert (profile.slug, profile.name, profile.limits.memory_bytes) == ("deep-sea", "Deep Sea", 4 * 1024**3)
    assert profile.environment().kernels == tuple(profile.kernels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": None}, "Profile deep-sea: `name` is missing."),
        ({"colour": "red"}, "Profile deep-sea: `colour` is not a known key."),
        ({"folder": "/etc"}, "Profile deep-sea: `folder` is not a known key."),
        ({"python": 3.11}, "Profile deep-sea: `python` must be quoted, such as '3.11'."),
        ({"python": "2.7"}, "Profile deep-sea: `python` string should match pattern"),
        ({"kernels": []}, "Profile deep-sea: `kernels` list should have at least 1 item"),
        ({"kernels": GOOD["kernels"] * 2}, "Profile deep-sea: kernels: a name stands twice."),  # type: ignore[operator]
        ({"needs": ["magic"]}, "Profile deep-sea: `needs.0` input should be 'headers'."),
        ({"limits": {"memory": "lots"}}, "Profile deep-sea: `limits.memory` string should match pattern"),
        ({"limits": {"cpu": 0}}, "Profile deep-sea: `limits.cpu` input should be greater than 0."),
        ({"choices": {"memory": ["4G", "2G"]}}, "Profile deep-sea: `choices.memory` must rise"),
        ({"choices": {"cpu": [1, 4]}}, "Profile deep-sea: choices.cpu lacks 2, which `limits` gives."),
        ({"choices": {"memory": ["2G"]}}, "Profile deep-sea: choices.memory lacks 4G, which `limits` gives."),
        ({"group_limits": {"/a": {"disk": 1}}}, "Profile deep-sea: `group_limits./a.disk` is not a known key."),
        ({"mode": "magic"}, "Profile deep-sea: `mode` input should be 'replica' or 'download'."),
        ({"environment": {"PATH": "/evil"}}, "Profile deep-sea: `environment` sets PATH, which belongs to"),
        (
            {"environment": {"JUPYTERHUB_API_TOKEN": "x"}},
            "Profile deep-sea: `environment` sets JUPYTERHUB_API_TOKEN",
        ),
        ({"environment": {"a b": "x"}}, "Profile deep-sea: `environment.a b"),
        ({"mounts": [{"name": "m", "path": "/data"}]}, "Profile deep-sea: `mounts.0` m needs either `host` or"),
        (
            {"mounts": [{"name": "m", "path": "/data", "host": "/a", "claim": "b"}]},
            "Profile deep-sea: `mounts.0` m needs either `host` or `claim`.",
        ),
        (
            {"mounts": [{"name": "m", "path": "/etc/x", "host": "/a"}]},
            "Profile deep-sea: `mounts.0.path` must not lie below /etc, which belongs to the session.",
        ),
        (
            {"mounts": [{"name": "m", "path": "/data/../etc", "host": "/a"}]},
            "Profile deep-sea: `mounts.0.path` must be an absolute path without",
        ),
        (
            {"mounts": [{"name": n, "path": "/data", "host": "/a"} for n in ("m", "n")]},
            "Profile deep-sea: mounts: a path stands twice.",
        ),
        (
            {"variants": [{"name": "next"}]},
            "Profile deep-sea: `variants.0` next changes nothing: it needs `lock`",
        ),
        (
            {"variants": [{"name": "next", "lock": "../other.lock"}]},
            "Profile deep-sea: `variants.0.lock` string should match pattern",
        ),
        ({"variants": [{"name": "next", "lock": "next.lock"}]}, "Profile deep-sea: next.lock is missing."),
        (
            {"highlights": ["torch"]},
            "Profile deep-sea: `highlights` names torch, which requirements.lock lacks.",
        ),
        (
            {"experiments": ["atlantis"]},
            "Profile deep-sea: `experiments` names atlantis, which dmsp.yaml does not know.",
        ),
        (
            {"kernels": [{"name": "cling", "display_name": "C++", "language": "c++"}]},
            "Profile deep-sea: `kernels.0` cling needs a command: only python has a default one.",
        ),
        (
            {"kernels": [{"name": "k", "display_name": "K", "language": "r", "command": "R -f x"}]},
            "Profile deep-sea: `kernels.0.command` must contain {connection_file} as a word of its own.",
        ),
    ],
)
def test_faults_of_the_yaml(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    make(tmp_path, **change)
    (fault,) = faults(tmp_path, experiments={"km3net"})
    assert fault.startswith(sentence)


@pytest.mark.parametrize(
    ("lock", "sentence"),
    [
        (LOCK.replace("    --hash=sha256:01\n", ""), "requirements.lock has no hash for numpy."),
        ("--index-url https://mirror.example/simple\n" + LOCK, "requirements.lock names a package index"),
        (LOCK + "-i https://mirror.example/simple\n", "requirements.lock names a package index"),
        (LOCK.replace("pip==26.3", "pipx==26.3"), "requirements.lock lacks pip."),
        (LOCK.replace("ipykernel", "ipython"), "requirements.lock lacks ipykernel."),
    ],
)
def test_faults_of_the_lock(tmp_path: Path, lock: str, sentence: str) -> None:
    make(tmp_path, lock=lock)
    (fault,) = faults(tmp_path)
    assert fault.startswith(f"Profile deep-sea: {sentence}")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("profile.yaml", None, "profile.yaml is missing."),
        ("profile.yaml", b"name: [", "profile.yaml is not YAML in line 1: "),
        ("profile.yaml", b"- a", "profile.yaml must be a mapping of keys."),
        ("profile.yaml", b"\xff\xfe", "profile.yaml is not UTF-8 text."),
        ("requirements.lock", None, "requirements.lock is missing."),
        ("smoke.ipynb", None, "smoke.ipynb is missing."),
        ("smoke.ipynb", b"{}", "smoke.ipynb is not a notebook that names its kernel."),
        (
            "smoke.ipynb",
            json.dumps(NOTEBOOK | {"metadata": {"kernelspec": {"name": "julia"}}}).encode(),
            "smoke.ipynb asks for the kernel julia, which the profile does not offer.",
        ),
    ],
)
def test_faults_of_the_folder(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    path = make(tmp_path) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (fault,) = faults(tmp_path)
    assert fault.startswith(f"Profile deep-sea: {sentence}")


def test_all_faults_of_all_profiles_at_once(tmp_path: Path) -> None:
    make(tmp_path, "one", name=None)
    make(tmp_path, "two", colour="red", depth=3)
    make(tmp_path, "Three")
    assert [fault.split(":")[0] for fault in faults(tmp_path)] == [
        "Profile Three",
        "Profile one",
        "Profile two",
        "Profile two",
    ]


def test_empty_and_missing_catalogue(tmp_path: Path) -> None:
    assert faults(tmp_path)[0].endswith("holds no profile.")
    assert "cannot be read" in faults(tmp_path / "nowhere")[0]


def test_who_may_launch_what_in_which_order(tmp_path: Path) -> None:
    make(tmp_path, "closed", name="Closed", experiments=["km3net", "collider"], order=1)
    make(tmp_path, "open-b", name="beta", experiments=[])
    make(tmp_path, "open-a", name="Alpha", experiments=[])
    found = catalogue.load(tmp_path)
    assert [p.slug for p in found] == ["closed", "open-a", "open-b"]
    assert [p.slug for p in found.for_experiments([])] == ["open-a", "open-b"]
    assert [p.slug for p in found.for_experiments({"collider"})] == ["closed", "open-a", "open-b"]
    assert found.get("closed") is not None
    assert found.get("nothing") is None


def test_groups_of_the_issuer_open_a_profile_too(tmp_path: Path) -> None:
    make(tmp_path, groups=["/dmsp/guests"])
    (profile,) = catalogue.load(tmp_path)
    assert [
        profile.open_to(experiments, groups)
        for experiments, groups in (
            ([], []),
            (["km3net"], []),
            ([], ["/dmsp/guests"]),
            (["collider"], ["/dmsp"]),
        )
    ] == [False, True, True, False]


def test_lock_of_a_variant_counts(tmp_path: Path) -> None:
    folder = make(tmp_path, variants=[{"name": "next", "lock": "next.lock"}])
    (folder / "next.lock").write_text(LOCK.replace("pip==", "pipx=="))
    assert faults(tmp_path) == ["Profile deep-sea: next.lock lacks pip."]
    (folder / "next.lock").write_text(LOCK)
    before = catalogue.load(tmp_path).digest()
    (folder / "next.lock").write_text(LOCK.replace("2.4.6", "2.4.7"))
    after = catalogue.load(tmp_path)
    assert after.digest() != before
    one, other = after.profiles[0].environments()
    assert one.digest() != other.digest()
    assert one.folder != other.folder


def test_digest_changes_with_what_matters(tmp_path: Path) -> None:
    folder = make(tmp_path)
    spec = catalogue.load(tmp_path).profiles[0].environment()
    before, page = spec.digest(), catalogue.load(tmp_path).digest()
    (folder / "requirements.in").write_text("numpy\n")
    assert (spec.digest(), catalogue.load(tmp_path).digest()) == (before, page)
    (folder / "requirements.lock").write_text(LOCK.replace("2.4.6", "2.4.7"))
    assert spec.digest() != before
    assert catalogue.load(tmp_path).digest() != page


def test_digest_of_the_environment_ignores_texts_but_not_kernels(tmp_path: Path) -> None:
    one = catalogue.load(make(tmp_path / "a").parent).profiles[0].environment()
    two = catalogue.load(make(tmp_path / "b", description="Other").parent).profiles[0].environment()
    kernels = [{"name": "python3", "display_name": "Python (sea)", "language": "python"}]
    three = catalogue.load(make(tmp_path / "c", kernels=kernels).parent).profiles[0].environment()
    assert one.digest() == two.digest() != three.digest()


def test_shipped_catalogue() -> None:
    shipped = catalogue.load(experiments={"dmsp", "km3net", "collider"})
    assert [profile.slug for profile in shipped] == ["minimal", "km3net", "root"]
    assert [profile.slug for profile in shipped.for_experiments(["collider"])] == ["minimal", "root"]
    root = shipped.get("root")
    assert root is not None
    assert root.needs == ["headers"]
    assert [kernel.language for kernel in root.kernels] == ["python", "c++"]


def test_installed_catalogue_goes_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.sysconfig, "get_path", lambda _: str(tmp_path))
    assert catalogue.default_path() != tmp_path / "share" / "jupyterhub-dmsp" / "profiles"
    shutil.copytree(catalogue.default_path(), tmp_path / "share" / "jupyterhub-dmsp" / "profiles")
    assert catalogue.default_path() == tmp_path / "share" / "jupyterhub-dmsp" / "profiles"
    assert len(catalogue.load()) == 3


def test_schema_knows_no_folder() -> None:
    schema = catalogue.json_schema()
    assert "folder" not in schema["properties"]
    assert schema["required"] == ["name", "kernels"]


def test_kernelspecs_replace_the_packages_own(tmp_path: Path) -> None:
    kernels = tmp_path / "share" / "jupyter" / "kernels"
    for name in ("python3", "metakernel_python"):
        (kernels / name).mkdir(parents=True)
    cached = tmp_path / "cache.json"
    cached.write_text("{}")
    (kernels / "python3" / "kernel.json").hardlink_to(cached)
    python = Kernel(name="python3", display_name="Python 3", language="python")
    (path,) = write_kernelspecs(tmp_path, "deep-sea", (python,))
    written = json.loads(path.read_text())
    assert sorted(entry.name for entry in kernels.iterdir()) == ["python3"]
    assert written["argv"][0] == str(tmp_path / "bin" / "python")
    assert written["argv"][-1] == "--InteractiveShellApp.extra_extensions=dmsp"
    assert written["env"]["PATH"] == f"{tmp_path}/bin:${{PATH}}"
    assert cached.read_text() == "{}"

"""The launch form as people and their screen readers get it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jupyterhub_dmsp.hub.launch import form
from jupyterhub_dmsp.profiles.catalogue import Profile
from jupyterhub_dmsp.profiles.launch import Capacity
from jupyterhub_dmsp.settings import Experiment, Settings, Site


def profile(slug: str, name: str, **more: object) -> Profile:
    kernels = [{"name": slug, "display_name": f"Python ({slug})", "language": "python"}]
    return Profile.model_validate({"name": name, "kernels": kernels, "folder": Path("/x", slug), **more})


PROFILES = [
    profile("minimal", "Minimal", description="Numbers & plots <fast>", highlights=["numpy"]),
    profile("km3net", "KM3NeT", experiments=["km3net"]),
]
SETTINGS = Settings(
    site=Site(support="help@example.org"),
    experiments=[
        Experiment(
            name="km3net", title="KM3NeT collaboration", groups=["/x"], embargo="Ask before you publish."
        )
    ],
)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_every_choice_has_a_label_and_a_description() -> None:
    page = Page(form.render(PROFILES, SETTINGS))
    inputs = [i for i in page.all("input") if i["type"] == "radio"]
    assert [(i["type"], i["name"], i["value"]) for i in inputs] == [
        ("radio", "profile", "minimal"),
        ("radio", "profile", "km3net"),
    ]
    assert all("required" in i for i in inputs)
    assert {label["for"] for label in page.all("label")} == {i["id"] for i in page.all("input")}
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {i["aria-describedby"] for i in inputs} <= ids
    assert len(page.all("fieldset")) == len(page.all("legend")) == 2


def test_text_is_escaped_and_nothing_comes_from_elsewhere() -> None:
    text = form.render(PROFILES, SETTINGS, notice="<b>")
    assert "Numbers &amp; plots &lt;fast&gt;" in text
    assert "&lt;b&gt;" in text
    assert not re.search(r"<script src|https?://|url\(|@import", text)
    assert "Ask before you publish." in text
    assert "KM3NeT collaboration" in text


@pytest.mark.parametrize(
    ("last", "default", "chosen"),
    [
        ("km3net", "minimal", "km3net"),
        ("gone", "km3net", "km3net"),
        ("", "gone", "minimal"),
        ("", "minimal", "minimal"),
    ],
)
def test_preselection(last: str, default: str, chosen: str) -> None:
    assert form.preselected(PROFILES, last, default) == chosen
    assert form.preselected([], last, default) == ""


def test_exactly_one_is_checked() -> None:
    page = Page(form.render(PROFILES, SETTINGS, last={"profile": "km3net"}))
    assert [i["value"] for i in page.all("input") if "checked" in i] == ["km3net"]


def test_message_when_there_is_nothing() -> None:
    text = form.render([], SETTINGS)
    assert "No environment is open to your groups" in text
    assert "help@example.org" in text
    assert "<input" not in text
    assert "administrator" in form.render([], Settings())


RICH = profile(
    "rich",
    "Rich",
    limits={"memory": "4G", "cpu": 2},
    choices={"memory": ["512M", "4G", "16G"], "cpu": [1, 2, 2.5], "gpu": [0, 1]},
    group_limits={"/big": {"memory": "16G"}},
    variants=[{"name": "next", "title": "Next release", "environment": {"A": "1"}}],
)


class Selects(HTMLParser):
    """Name of each select to its values; the chosen one is marked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "select":
            self.found[given["name"] or ""] = []
        elif tag == "option":
            mark = "*" if "selected" in given else ""
            list(self.found.values())[-1].append(f"{given['value']}{mark}")


def test_choices_are_those_of_the_users_groups() -> None:
    common = {"variant:rich": ["*", "next"], "cpu:rich": ["1", "2*", "2.5"], "gpu:rich": ["0*", "1"]}
    assert Selects(form.render([RICH], SETTINGS)).found == common | {"memory:rich": ["512M", "4G*"]}
    text = form.render([RICH], SETTINGS, groups=["/big"])
    assert Selects(text).found == common | {"memory:rich": ["512M", "4G*", "16G"]}
    page = Page(text)
    assert {s["id"] for s in page.all("select")} <= {label["for"] for label in page.all("label")}
    assert "512 MB" in text


@pytest.mark.parametrize(
    ("last", "chosen"),
    [
        ({"memory": "512M", "cpu": 2.5, "gpu": 1, "variant": "next"}, ["next*", "512M*", "2.5*", "1*"]),
        # What is no longer offered falls back by itself.
        ({"memory": "16G", "cpu": 1.0, "gpu": "x", "variant": "old"}, ["*", "4G*", "1*", "0*"]),
        ({"memory": ["4G"], "cpu": {}, "gpu": None, "colour": "red"}, ["*", "4G*", "2*", "0*"]),
    ],
)
def test_last_choices_are_preselected(last: dict[str, object], chosen: list[str]) -> None:
    found = Selects(form.render([RICH], SETTINGS, last={"profile": "rich", **last})).found
    assert [value for values in found.values() for value in values if value.endswith("*")] == chosen
    other = Selects(form.render([RICH], SETTINGS, last={"profile": ["rich"], **last})).found
    assert other["memory:rich"] == ["512M", "4G*"]


def test_free_capacity_is_told_and_marked() -> None:
    text = form.render([RICH], SETTINGS, capacity=Capacity(3 * 1024**3 + 1, 1.5, 1))
    assert "Free now: 3 GB of memory, 1.5 cores, 1 graphics processor." in text
    assert "4 GB (more than is free now)" in text
    assert "512 MB (" not in text
    assert "Free now" not in form.render([RICH], SETTINGS)
    assert "Free now" not in form.render([RICH], SETTINGS, capacity=Capacity())


def test_cards_stand_where_their_user_belongs() -> None:
    settings = Settings(
        experiments=[Experiment(name="a", title="Alpha", groups=["/a"]), Experiment(name="b", groups=["/b"])]
    )
    profiles = [
        profile("open", "Open"),
        profile("both", "Both", experiments=["a", "b"]),
        profile("guests", "Guests", groups=["/guests"]),
    ]
    text = form.render(profiles, settings, groups=["/b"])
    assert re.findall(r"<legend>(.*?)</legend>", text) == ["For everybody", "b", "For your groups"]
    assert re.findall(r"<legend>(.*?)</legend>", form.render(profiles, settings, groups=["/a"]))[1] == "Alpha"


def test_packages_come_from_the_lock(tmp_path: Path) -> None:
    lock = "numpy==2.4.6 \\\n    --hash=sha256:00\nUproot[all]==5.7 ; python_version > '3' \\\n    --hash=sha256:01\n"
    for name, text in (("requirements.lock", lock), ("next.lock", lock.replace("2.4.6", "2.5.0"))):
        (tmp_path / name).write_text(text)
    kernels = [{"name": "k", "display_name": "K", "language": "python"}]
    variants = [{"name": "next", "description": "Newer.", "lock": "next.lock"}]
    data = {"name": "N", "kernels": kernels, "folder": tmp_path, "variants": variants}
    text = form.render([Profile.model_validate(data)], SETTINGS)
    assert "2 packages, Python 3.11" in text
    assert re.search(r"<span>numpy</span> <span>2\.4\.6</span>", text)
    assert re.search(r"<span>Uproot</span> <span>5\.7</span>", text)
    assert re.search(r"<strong>next:</strong> Newer\.\s+<span[^>]*>numpy 2\.5\.0</span>\s+</p>", text)


def test_search_is_there_for_those_with_scripts_only() -> None:
    page = Page(form.render(PROFILES, SETTINGS))
    assert [d for d in page.all("div") if d.get("class") == "dmsp-search" and "hidden" in d]
    (box,) = [i for i in page.all("input") if i["type"] == "search"]
    assert "name" not in box  # it is not sent
    live = {p.get("id"): p for p in page.all("p")}[box["aria-describedby"] or ""]
    assert (live["role"], live["aria-live"]) == ("status", "polite")
    assert not [i for i in Page(form.render(PROFILES[:1], SETTINGS)).all("input") if i["type"] == "search"]

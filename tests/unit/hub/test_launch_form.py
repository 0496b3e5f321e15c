"""The launch form as people and their screen readers get it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jupyterhub_dmsp.hub.launch import form
from jupyterhub_dmsp.profiles.catalogue import Profile
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

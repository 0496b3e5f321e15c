"""Fields of a form, and of a query, as options."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_dmsp.hub.launch import request
from jupyterhub_dmsp.profiles.launch import NotOffered


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"profile": ["a"]}, {"profile": "a"}),
        ({"profile": ["a"], "memory": ["4G"], "cpu": [""]}, {"profile": "a", "memory": "4G"}),
        # Without JavaScript every card's choices are sent.
        (
            {"profile": ["a"], "memory:a": ["4G"], "memory:b": ["1G"], "variant:b": ["x"], "cpu:a": ["2"]},
            {"profile": "a", "memory": "4G", "cpu": "2"},
        ),
        ({"profile": ["a"], "memory:b": ["x", "y"]}, {"profile": "a"}),
        ({"profile": ["a"], "_xsrf": ["secret"]}, {"profile": "a"}),
    ],
)
def test_accepted(fields: dict[str, list[Any]], options: dict[str, str]) -> None:
    assert request.options(fields) == options


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"profile": ["a", "b"]}, "The option `profile` must be given once."),
        ({"profile": []}, "The option `profile` must be given once."),
        ({"profile": ["a"], "memory": ["1G"], "memory:a": ["1G"]}, "The option `memory` is given twice."),
        ({"profile": ["a"], "profile:a": ["b"]}, "The option 'profile:a' is not known."),
        ({"profile": ["a"], "image": ["x"]}, "The option 'image' is not known."),
        ({"profile": ["a"], "memory_file": [{"body": b"x"}]}, "The option 'memory_file' is not known."),
        ({"profile": [{"body": b"x"}]}, "The option `profile` must be text."),
    ],
)
def test_refused(fields: dict[str, list[Any]], sentence: str) -> None:
    with pytest.raises(NotOffered) as caught:
        request.options(fields)
    assert caught.value.message == sentence

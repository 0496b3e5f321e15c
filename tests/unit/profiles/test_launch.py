"""What a request turns into: choices, limits of groups, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_dmsp.profiles.launch import Launch, NotOffered, Offer, offer, resolve
from jupyterhub_dmsp.profiles.schema import Profile

KERNELS = [{"name": "python3", "display_name": "Python 3", "language": "python"}]


def profile(**more: Any) -> Profile:
    data = {"name": "Deep sea", "kernels": KERNELS, "folder": Path("/catalogue/deep-sea"), **more}
    return Profile.model_validate(data)


RICH = profile(
    limits={"memory": "4G", "cpu": 2},
    choices={"memory": ["2G", "4G", "16G", "64G"], "cpu": [1, 2, 4.5], "gpu": [0, 1, 4]},
    group_limits={
        "/a": {"memory": "16G", "gpu": 1},
        "/b": {"memory": "64G"},
        "/c": {"gpu": 4},
        "/few": {"memory": "1G"},
    },
    variants=[{"name": "next", "lock": "next.lock", "python": "3.12", "environment": {"A": "2", "C": "3"}}],
    environment={"A": "1", "B": "x"},
    image="lab:1",
    mounts=[{"name": "cvmfs", "path": "/cvmfs", "host": "/cvmfs"}],
    mode="download",
)


@pytest.mark.parametrize(
    ("groups", "memory", "gpu"),
    [
        ((), ("2G", "4G"), (0,)),
        (("/stranger",), ("2G", "4G"), (0,)),
        (("/a",), ("2G", "4G", "16G"), (0, 1)),
        (("/b",), ("2G", "4G", "16G", "64G"), (0,)),
        (("/a", "/c"), ("2G", "4G", "16G"), (0, 1, 4)),
        (("/a", "/b", "/c"), ("2G", "4G", "16G", "64G"), (0, 1, 4)),
        # A limit below what everybody gets takes nothing away.
        (("/few",), ("2G", "4G"), (0,)),
    ],
)
def test_most_generous_group_of_each_resource(
    groups: tuple[str, ...], memory: tuple[str, ...], gpu: tuple[int, ...]
) -> None:
    # Nobody limits cpu: all of it is everybody's.
    assert offer(RICH, groups) == Offer(memory, (1, 2, 4.5), gpu)


def test_nothing_chosen_is_the_profile_itself() -> None:
    for empty in ({}, {"memory": "", "cpu": None, "variant": ""}):
        launch = resolve(RICH, empty, ())
        assert (launch.limits, launch.gpus, launch.variant) == (RICH.limits, 0, None)
        assert launch.variables == {"A": "1", "B": "x"}
        assert (launch.image, launch.mode) == ("lab:1", "download")
        assert launch.environment() == RICH.environment()
        assert [mount.path for mount in launch.mounts] == ["/cvmfs"]


def test_all_chosen() -> None:
    asked = {"profile": "deep-sea", "variant": "next", "memory": "16G", "cpu": "4.5", "gpu": "1"}
    launch = resolve(RICH, asked, ["/a"])
    assert (launch.limits.memory_bytes, launch.limits.cpu, launch.gpus) == (16 * 1024**3, 4.5, 1)
    assert launch.limits.processes == RICH.limits.processes
    assert launch.variables == {"A": "2", "B": "x", "C": "3"}
    spec = launch.environment()
    assert (spec.lock, spec.python, spec.slug) == (RICH.folder / "next.lock", "3.12", "deep-sea")


def test_a_launch_asked_again_is_the_same() -> None:
    launch = resolve(RICH, {"variant": "next", "memory": "2G", "cpu": 1, "gpu": 4}, ["/c"])
    assert resolve(RICH, launch.options(), ["/c"]) == launch
    plain = profile()
    assert resolve(plain, resolve(plain, {}, ()).options(), ()) == Launch(plain, plain.limits)


@pytest.mark.parametrize(
    ("options", "reason", "sentence"),
    [
        ({"memory": "8G"}, "choice", "The choice '8G' for `memory` is not offered; offered: 2G, 4G."),
        (
            {"memory": "64G"},
            "limit",
            "64G for `memory` is more than your groups may choose; you may choose 2G, 4G.",
        ),
        ({"gpu": 4}, "limit", "4 for `gpu` is more than your groups may choose; you may choose 0."),
        ({"cpu": "4.50"}, "", ""),
        ({"cpu": "04"}, "choice", "The choice '04' for `cpu` is not offered; offered: 1, 2, 4.5."),
        ({"cpu": True}, "choice", "of another type"),
        ({"cpu": float("nan")}, "choice", "is not offered"),
        ({"cpu": float("-inf")}, "choice", "is not offered"),
        ({"cpu": 10**400}, "choice", "is not offered"),
        ({"variant": "old"}, "choice", "Deep sea has no variant 'old'; there are: next."),
        ({"image": "x"}, "option", "The option 'image' is not known."),
        ({"\x1b[31m": "x"}, "option", r"'\x1b[31m' is not known."),
    ],
)
def test_refusals(options: dict[str, Any], reason: str, sentence: str) -> None:
    if not reason:
        assert resolve(RICH, options, ()).limits.cpu == 4.5
        return
    with pytest.raises(NotOffered) as caught:
        resolve(RICH, options, ())
    assert caught.value.reason == reason
    assert sentence in caught.value.message


def test_profile_without_choices_takes_its_own_values_only() -> None:
    plain = profile()
    assert resolve(plain, {"memory": "4G", "cpu": "2", "gpu": 0}, ()).limits == plain.limits
    for options in ({"memory": "2G"}, {"cpu": 1}, {"gpu": 1}, {"variant": "next"}):
        with pytest.raises(NotOffered):
            resolve(plain, options, ())


def test_profile_that_needs_a_graphics_processor_has_one_by_default() -> None:
    assert resolve(profile(choices={"gpu": [1, 2]}), {}, ()).gpus == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["profile", "variant", "memory", "cpu", "gpu"]) | st.text(max_size=20)


@given(st.dictionaries(NAMES, JSON, max_size=5))
def test_whatever_is_asked_is_offered_or_refused(options: dict[str, Any]) -> None:
    try:
        launch = resolve(RICH, options, ["/a"])
    except NotOffered as error:
        refused = str(error)
    else:
        refused = ""
    assert len(refused) < 300
    assert refused.isprintable()
    if refused:
        return
    open_ = offer(RICH, ["/a"])
    assert launch.limits.memory in open_.memory
    assert launch.limits.cpu in open_.cpu
    assert launch.gpus in open_.gpu

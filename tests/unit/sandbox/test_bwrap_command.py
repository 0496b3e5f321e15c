"""The command line that bubblewrap gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_dmsp.sandbox.bwrap import Bind, Identity, Sandbox, write_etc

WHO = Identity(
    "km3net-user", 61000, 61000, {"dmsp-km3net": 71001, "dmsp-dmsp": 71000}, home="/home/km3net-user"
)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    write_etc(folder, WHO, resolv="nameserver 192.0.2.1\n", hosts={"100.64.1.1": "hub"})
    return folder


def pairs(command: list[str]) -> set[tuple[str, ...]]:
    return {tuple(command[index : index + 3]) for index in range(len(command) - 2)}


def test_generated_files(etc: Path) -> None:
    assert "km3net-user:x:61000:61000::/home/km3net-user:/bin/bash\n" in (etc / "passwd").read_text()
    assert "dmsp-km3net:x:71001:km3net-user\n" in (etc / "group").read_text()
    assert (etc / "hosts").read_text() == "127.0.0.1 localhost\n100.64.1.1 hub\n"
    assert (etc / "resolv.conf").read_text() == "nameserver 192.0.2.1\n"
    assert etc.stat().st_mode & 0o777 == 0o755


def test_parents_come_before_binds_and_inside_binds_not_at_all(etc: Path) -> None:
    binds = [Bind("/srv/a/b/c"), Bind("/srv/a/b"), Bind("/x", "/home/km3net-user", writable=True)]
    command = Sandbox(WHO, etc, binds, privileged=True).command(["true"])
    assert ("--perms", "0755", "--dir") in pairs(command)
    order = [command.index(path) for path in ("/srv", "/srv/a", "/srv/a/b", "/srv/a/b/c")]
    assert order == sorted(order)
    assert ("--dir", "/srv/a/b", "--dir") not in pairs(command)
    assert command[command.index("/srv/a/b") - 1] == "--ro-bind"
    assert ("--bind", "/x", "/home/km3net-user") in pairs(command)
    assert command.index("--remount-ro") > command.index("/srv/a/b/c")


def test_root_becomes_the_user_for_good(etc: Path) -> None:
    command = Sandbox(WHO, etc, privileged=True, network=Path("/run/netns/x")).command(["program", "--option"])
    assert command[:3] == ["nsenter", "--net=/run/netns/x", "bwrap"]
    after = command[command.index("--") + 1 :]
    assert after[:7] == ["setpriv", "--reuid", "61000", "--regid", "61000", "--groups", "61000,71000,71001"]
    assert {"--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"} <= set(after)
    assert after[-2:] == ["program", "--option"]
    assert "--die-with-parent" not in command
    assert "--unshare-user" not in command


def test_ordinary_user_gets_a_user_namespace(etc: Path) -> None:
    command = Sandbox(WHO, etc, privileged=False, die_with_parent=True).command(["program"])
    assert "setpriv" not in command
    assert {"--unshare-user", "--die-with-parent", "--unshare-pid", "--unshare-ipc"} <= set(command)


def test_optional_binds_may_be_missing(etc: Path) -> None:
    command = Sandbox(WHO, etc, [Bind("/nowhere-at-all", "/scratch", optional=True)]).command(["true"])
    assert "/scratch" not in command


def test_targets_in_tmp_get_parents_too(etc: Path) -> None:
    command = Sandbox(WHO, etc, [Bind("/tmp/state/envs/x")]).command(["true"])
    assert ("--dir", "/tmp/state", "--perms") in pairs(command)
    assert ("--dir", "/tmp", "--perms") not in pairs(command)


def test_size_of_memory_file_systems(etc: Path) -> None:
    command = Sandbox(WHO, etc, tmpfs=1 << 20).command(["true"])
    for path in ("/tmp", "/dev/shm"):
        end = command.index(path)
        assert command[end - 5 : end] == ["--size", "1048576", "--perms", "1777", "--tmpfs"]
    assert "--size" not in Sandbox(WHO, etc).command(["true"])

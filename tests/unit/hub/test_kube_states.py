"""What pods and their events say about a start, in words for people."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_dmsp.hub.kube import states

Object = dict[str, Any]


def pod(**status: Any) -> Object:
    limits = {"memory": str(2 * 1024**3)}
    container = {"name": "session", "image": "images.example/km3net:1", "resources": {"limits": limits}}
    return {"spec": {"containers": [container], "nodeName": "n"}, "status": {"phase": "Pending", **status}}


def waiting(reason: str, message: str = "") -> Object:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "session", "image": "images.example/km3net:1", "state": state}


def terminated(code: int, reason: str = "") -> Object:
    return {"name": "session", "state": {"terminated": {"exitCode": code, "reason": reason}}}


def unplaced(message: str) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    one = pod(conditions=[condition])
    del one["spec"]["nodeName"]
    return one


RUNNING = pod(
    phase="Running", podIP="10.0.0.7", containerStatuses=[{"name": "session", "state": {"running": {}}}]
)
RUNNING["status"]["containerStatuses"][0]["state"]["running"] = {"startedAt": "2026-01-01T00:00:00Z"}


def events(*reasons: str) -> list[Object]:
    return [{"reason": reason, "message": ""} for reason in reasons]


def test_steps_rise() -> None:
    first = pod()
    del first["spec"]["nodeName"]
    initialised = pod(conditions=[{"type": "Initialized", "status": "True"}])
    steps = [
        states.step(first, []),
        states.step(unplaced("0/3 nodes are available: 3 Insufficient memory."), events("FailedScheduling")),
        states.step(pod(), events("Scheduled")),
        states.step(pod(), events("Scheduled", "FailedMount")),
        states.step(pod(), events("Scheduled", "Pulling")),
        states.step(pod(), events("Scheduled", "Pulling", "Pulled")),
        states.step(initialised, events("Scheduled", "Pulling", "Pulled", "Started")),
        states.step(RUNNING, []),
    ]
    assert [step.percent for step in steps] == sorted(step.percent for step in steps)
    assert len({step.message for step in steps}) == len(steps)
    assert steps[1].message == "Waiting for free memory"
    passed = [len(step.passed) for step in steps]
    assert passed == [0, 0, 1, 1, 1, 2, 2, 2]
    assert steps[4].message == "Fetching the image images.example/km3net:1"


def test_a_mount_that_came_is_not_waited_for() -> None:
    told = events("Scheduled", "FailedMount", "Pulling")
    assert states.step(pod(), told).message.startswith("Fetching")


def test_a_new_node_is_told() -> None:
    one = unplaced("0/3 nodes are available: 3 Insufficient cpu.")
    assert states.step(one, events("TriggeredScaleUp")).message == "The cluster is getting another node"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("0/3 nodes are available: 3 Insufficient memory.", "free memory"),
        ("0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.", "free cores and memory"),
        ("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", "free graphics processors"),
        ("pod has unbound immediate PersistentVolumeClaims", "its home folder"),
        ("0/1 nodes are available: 1 node(s) had untolerated taint", "a node that may take it"),
    ],
)
def test_no_room_is_a_sentence_after_a_while(message: str, words: str) -> None:
    fault = states.fault(unplaced(message), room=7)
    assert fault is not None
    assert fault.sentence == f"The cluster has no room for this session: it waited for {words}."
    assert (fault.patience, fault.detail, fault.theirs) == (7, message, True)


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_image_that_cannot_be_fetched(reason: str) -> None:
    fault = states.fault(pod(initContainerStatuses=[waiting(reason, "not found")]))
    assert fault is not None
    assert fault.sentence == "The image images.example/km3net:1 cannot be fetched."
    assert fault.detail == f"{reason}: not found"
    assert fault.patience == 0


def test_first_failure_to_fetch_is_waited_out() -> None:
    assert states.fault(pod(containerStatuses=[waiting("ErrImagePull")])) is None
    assert states.fault(pod(containerStatuses=[waiting("ContainerCreating")])) is None


def test_container_that_cannot_be_set_up_gets_some_seconds() -> None:
    fault = states.fault(pod(containerStatuses=[waiting("CreateContainerConfigError", "secret not found")]))
    assert fault is not None
    assert fault.patience > 0


def test_ends() -> None:
    killed = pod(phase="Failed", containerStatuses=[terminated(137, "OOMKilled")])
    fault = states.end(killed)
    assert fault is not None
    assert fault.sentence == "The session was ended because it used more memory than its 2 GiB."
    assert states.exit_code(killed) == 137
    crashed = pod(phase="Failed", containerStatuses=[terminated(3, "Error")])
    fault = states.end(crashed)
    assert fault is not None
    assert fault.sentence == "The session's server ended by itself (exit code 3)."
    assert states.exit_code(crashed) == 3
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    fault = states.end(evicted)
    assert fault is not None
    assert "ran out of resources" in fault.sentence
    assert states.exit_code(evicted) == 1
    assert states.exit_code(pod(phase="Succeeded", containerStatuses=[terminated(0)])) == 0


def test_what_runs_has_not_ended() -> None:
    assert states.end(RUNNING) is None
    assert states.exit_code(RUNNING) is None
    assert states.exit_code(pod()) is None
    assert states.address(RUNNING) == "10.0.0.7"
    assert states.address(pod(podIP="10.0.0.7")) == ""
    # The init container has done its work.
    assert states.end(pod(initContainerStatuses=[terminated(0, "Completed")])) is None

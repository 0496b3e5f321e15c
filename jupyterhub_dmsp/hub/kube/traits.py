"""What an admin may set about sessions on Kubernetes."""

from __future__ import annotations

from traitlets import Any as AnyTrait
from traitlets import Bool, Dict, Enum, Float, Integer, List, TraitError, Unicode, validate
from traitlets.config import LoggingConfigurable


class KubeTraits(LoggingConfigurable):
    """The configuration of :class:`~jupyterhub_dmsp.hub.kube.spawner.KubeProfileSpawner`."""

    kubeconfig = Unicode(
        "",
        config=True,
        help="""Path of a kubeconfig file. Default: empty, the service account of the hub's own pod.""",
    )
    namespace = Unicode(
        "", config=True, help="""Namespace of the sessions. Default: empty, the hub's own (the context's)."""
    )
    name_prefix = Unicode(
        "dmsp",
        config=True,
        help="""First part of the pods' names; two hubs in one namespace need two. Default: dmsp.""",
    )
    state_dir = Unicode(
        "",
        config=True,
        help="""Folder on the hub's own volume, where users' and groups' numbers are kept. Must be set.""",
    )
    user_id = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""``callable(spawner) -> int``: a user's uid, where the site has numbers of its own. Default: None,
        the hub gives them out from 61000 on.""",
    )
    group_ids = Dict(
        config=True,
        help="""Numbers of groups ``dmsp-<experiment>``, as the files on scratch carry them. Groups that are not
        named get numbers from 71000 on.""",
    )
    image = Unicode(
        "", config=True, help="""Image of profiles that name none. Default: none, they cannot be started."""
    )
    image_pull_policy = Enum(
        ["", "Always", "IfNotPresent", "Never"],
        default_value="",
        config=True,
        help="""When images are fetched. Default: empty, the cluster's own choice.""",
    )
    image_pull_secrets = List(
        Unicode(), config=True, help="""Names of secrets for fetching images. Default: none."""
    )
    session_port = Integer(8888, config=True, help="""Port of a server in its pod. Default: 8888.""")
    memory_share = Float(
        1.0,
        min=0.0,
        max=1.0,
        config=True,
        help="""Part of a session's memory that its node sets aside. Default: 1, all of it.""",
    )
    cpu_share = Float(
        0.5,
        min=0.0,
        max=1.0,
        config=True,
        help="""Part of a session's cores that its node sets aside; what is idle is shared. Default: 0.5.""",
    )
    home_claim = Unicode(
        "home-{user}",
        config=True,
        help="""Claim for homes; ``{user}`` is filled in. Empty: homes end with their session. Default:
        ``home-{user}``.""",
    )
    home_sub_path = Unicode(
        "", config=True, help="""Folder in the claim, such as ``{user}`` in a claim for all. Default: none."""
    )
    home_size = Unicode(
        "10Gi",
        config=True,
        help="""Size of a claim that has to be made. Empty: claims are there already. Default: 10Gi.""",
    )
    home_storage_class = Unicode(
        "", config=True, help="""Storage class of new claims. Default: empty, the cluster's own choice."""
    )
    home_access_mode = Unicode(
        "ReadWriteOnce",
        config=True,
        help="""Access mode of new claims. A user's named servers share the home: on several nodes they need
        ReadWriteMany. Default: ReadWriteOnce.""",
    )
    scratch_host = Unicode(
        "",
        config=True,
        help="""Folder of every node in which scratch is mounted, the one above ``lake.mount``. Default: none.""",
    )
    scratch_claim = Unicode(
        "", config=True, help="""Claim of scratch, in place of ``scratch_host``. Default: none."""
    )
    read_only = Bool(
        True,
        config=True,
        help="""Whether sessions cannot write into their image: home, /tmp and /dev/shm stay writable.
        Default: True.""",
    )
    labels = Dict(config=True, help="""Further labels, such as those that network policies select by.""")
    annotations = Dict(config=True, help="""Further annotations of pods.""")
    lifecycle = Dict(
        config=True, help="""``postStart`` and ``preStop`` of the container, as Kubernetes spells them."""
    )
    node_selector = Dict(config=True, help="""Labels that nodes must have. Default: none.""")
    tolerations = List(Dict(), config=True, help="""Taints that do not matter. Default: none.""")
    modify_pod = AnyTrait(
        None,
        allow_none=True,
        config=True,
        help="""``callable(spawner, pod) -> pod``: the last word on a pod, a plain dictionary. Default: None.""",
    )
    room_patience = Float(
        120.0,
        min=0.0,
        config=True,
        help="""Seconds to wait for a node with room, which an autoscaler may be bringing. Default: 120.""",
    )
    stop_grace = Integer(
        10, config=True, help="""Seconds that a server has for ending by itself. Default: 10."""
    )
    stop_patience = Integer(
        30,
        config=True,
        help="""Seconds beyond that for the pod to leave, before it is taken off the list. Default: 30.""",
    )

    @validate("name_prefix")
    def _short_prefix(self, proposal: dict[str, str]) -> str:
        value = proposal["value"]
        if not (value.isascii() and value.replace("-", "a").isalnum() and value == value.lower()):
            raise TraitError("name_prefix must be small letters, digits and dashes.")
        if len(value) > 10 or not value[0].isalpha():
            raise TraitError("name_prefix must begin with a letter and have at most 10 characters.")
        return value

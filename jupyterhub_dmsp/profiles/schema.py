"""What ``profile.yaml`` may say: the schema of one profile.

Keys are checked here as far as one profile's text goes; what its folder must hold is checked in
:mod:`~jupyterhub_dmsp.profiles.catalogue`, and what a user may choose is decided in
:mod:`~jupyterhub_dmsp.profiles.launch`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from jupyterhub_dmsp.profiles.builder import EnvironmentSpec
from jupyterhub_dmsp.profiles.kernels import Kernel
from jupyterhub_dmsp.settings import SLUG

LOCK, SMOKE = "requirements.lock", "smoke.ipynb"
MEMORY = r"^[1-9][0-9]{0,5}(\.[0-9]{1,3})?[MGT]$"
PYTHON = r"^3\.[0-9]{1,2}$"
IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$"
FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
_UNIT = {"M": 1024**2, "G": 1024**3, "T": 1024**4}

# What a session is made of: a profile that set one of these would break it, or the walls around it.
RESERVED_VARIABLES = re.compile(
    r"^(JUPYTER|JPY_|DMSP_|BEARER_TOKEN|RUCIO_CONFIG$|XDG_RUNTIME_DIR$|LD_|PYTHONPATH$|PYTHONHOME$"
    r"|(HOME|USER|LOGNAME|SHELL|PATH)$)"
)
RESERVED_PATHS = {"bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root", "run"}
RESERVED_PATHS |= {"sbin", "sys", "tmp", "usr", "var"}


def in_bytes(memory: str) -> int:
    """The bytes behind a memory such as ``512M`` or ``4G``."""
    return int(float(memory[:-1]) * _UNIT[memory[-1]])


def in_words(number: int) -> str:
    """Bytes of memory as people read them; what is left is never rounded up."""
    gib = 1024**3
    return f"{number // (gib // 10) / 10:g} GB" if number >= gib else f"{number // 1024**2} MB"


def _absolute(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or str(path) != value or ".." in path.parts or value.startswith("//"):
        raise ValueError("must be an absolute path without `.`, `..` or a slash at its end")
    if value == "/" or "\0" in value:
        raise ValueError("must name a folder below /")
    return value


def _seen_at(value: str) -> str:
    first = PurePosixPath(_absolute(value)).parts[1]
    if first in RESERVED_PATHS:
        raise ValueError(f"must not lie below /{first}, which belongs to the session")
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if RESERVED_VARIABLES.match(name):
            raise ValueError(f"sets {name}, which belongs to the session")
        if "\0" in text:
            raise ValueError(f"gives {name} a value that no variable can have")
    return value


def _rising(value: list[Any]) -> list[Any]:
    sizes = [in_bytes(entry) if isinstance(entry, str) else entry for entry in value]
    if any(later <= earlier for earlier, later in pairwise(sizes)):
        raise ValueError("must rise from each value to the next")
    return value


def _twice(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) < len(listed)


Memory = Annotated[str, Field(pattern=MEMORY)]
Slug = Annotated[str, Field(pattern=SLUG)]
Group = Annotated[str, Field(min_length=1, max_length=200)]
Image = Annotated[str, Field(pattern=rf"{IMAGE}|^$")]
Python = Annotated[str, Field(pattern=PYTHON)]
HostPath = Annotated[str, AfterValidator(lambda value: value and _absolute(value))]
SeenPath = Annotated[str, AfterValidator(_seen_at)]
Variables = Annotated[
    dict[Annotated[str, Field(pattern=VARIABLE)], Annotated[str, Field(max_length=4000)]],
    AfterValidator(_variables),
]
Mode = Literal["replica", "download"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Section):
    """What a session may use, unless its user chooses something else."""

    memory: Memory = Field("4G", description="Memory, such as 512M or 4G.")
    cpu: float = Field(2.0, gt=0, le=256, description="Cores.")
    processes: int = Field(512, ge=32, le=65536, description="Processes and threads together.")

    @property
    def memory_bytes(self) -> int:
        """The memory limit in bytes."""
        return in_bytes(self.memory)


class Choices(_Section):
    """Values that the launch page offers; each list rises. Without a list there is nothing to choose."""

    memory: Annotated[list[Memory], AfterValidator(_rising)] = Field(
        [], max_length=12, description="Memory; `limits.memory` is one of them and is preselected."
    )
    cpu: Annotated[list[Annotated[float, Field(gt=0, le=256)]], AfterValidator(_rising)] = Field(
        [], max_length=12, description="Cores; `limits.cpu` is one of them and is preselected."
    )
    gpu: Annotated[list[Annotated[int, Field(ge=0, le=64)]], AfterValidator(_rising)] = Field(
        [],
        max_length=12,
        description="Graphics processors; the first one is preselected. A session without this choice has none.",
    )


class GroupLimit(_Section):
    """The most that a group's members may choose; what is left out is not widened."""

    memory: Memory | None = Field(None, description="The most memory.")
    cpu: float | None = Field(None, gt=0, le=256, description="The most cores.")
    gpu: int | None = Field(None, ge=0, le=64, description="The most graphics processors.")


class Variant(_Section):
    """Another edition of a profile, such as the next release: what it leaves out is as in the profile."""

    name: Slug = Field(description="Short name, as requests give it.")
    title: str = Field("", max_length=60, description="As the launch page shows it; `name` when empty.")
    description: str = Field("", max_length=200, description="A sentence: what differs.")
    lock: Annotated[str, Field(pattern=rf"{FILE}|^$")] = Field(
        "", description="Hash lock in the profile's folder, such as `requirements-next.lock`."
    )
    python: Python | None = Field(None, description="Minor version of Python, quoted.")
    image: Image = Field("", description="Container image, where sessions are containers.")
    variables: Variables = Field({}, alias="environment", description="Further environment variables.")

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if not (self.lock or self.python or self.image or self.variables):
            raise ValueError(
                f"{self.name} changes nothing: it needs `lock`, `python`, `image` or `environment`"
            )
        return self


class Mount(_Section):
    """A folder that sessions see beside their home and scratch."""

    name: Slug = Field(description="Short name; names the volume.")
    path: SeenPath = Field(description="Where sessions see it: an absolute path such as `/cvmfs`.")
    host: HostPath = Field("", description="Folder of the machine that the session runs on.")
    claim: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$|^$")] = Field(
        "", description="PersistentVolumeClaim, on Kubernetes only. One of `host` and `claim` is needed."
    )
    read_only: bool = Field(True, description="Whether sessions may only read.")
    optional: bool = Field(
        False, description="Left out where the machine does not have it; otherwise the start is refused."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.host) == bool(self.claim):
            raise ValueError(f"{self.name} needs either `host` or `claim`")
        return self


class Profile(_Section):
    """One environment that can be launched: ``profile.yaml`` and the folder it stands in."""

    name: str = Field(min_length=1, max_length=60, description="As the launch page shows it.")
    description: str = Field(
        "", max_length=400, description="One or two sentences: what it is for, what is in it."
    )
    experiments: list[Slug] = Field(
        [],
        description="Members of any of these experiments may launch it. Without `experiments` and `groups`: everybody.",
    )
    groups: list[Group] = Field(
        [], description="Members of any of these groups of the identity provider may launch it, too."
    )
    python: Python = Field("3.11", description="Minor version of Python, quoted.")
    kernels: list[Kernel] = Field(
        min_length=1, max_length=20, description="Kernels; the first one is the default."
    )
    needs: list[Literal["headers"]] = Field(
        [], description="What the machine must have: `headers` = a C++ compiler's headers."
    )
    limits: Limits = Field(default_factory=Limits, description="What a session may use.")
    choices: Choices = Field(default_factory=Choices, description="What its user may choose instead.")
    group_limits: dict[Group, GroupLimit] = Field(
        {},
        description="The most that members of a group may choose. Where no group is named for a resource, all its"
        " choices are everybody's; where some are, the others keep to `limits`. Who is in several groups has the most"
        " generous value of each.",
    )
    variants: list[Variant] = Field([], max_length=20, description="Other editions, to choose from.")
    variables: Variables = Field(
        {}, alias="environment", description="Environment variables of the session; never a secret."
    )
    mounts: list[Mount] = Field([], max_length=20, description="Folders that sessions see, such as CVMFS.")
    mode: Mode | None = Field(
        None,
        description="How datasets reach the session: `replica` through scratch, `download` into the user's space;"
        " `lake.mode` of dmsp.yaml when it is left out.",
    )
    image: Image = Field("", description="Container image, where sessions are containers.")
    highlights: list[Annotated[str, Field(min_length=1, max_length=40)]] = Field(
        [], max_length=8, description="Packages worth showing, as they are spelled in the lock."
    )
    order: int = Field(100, ge=0, le=1000, description="Place on the launch page; then by name.")
    folder: Path = Field(exclude=True, repr=False, json_schema_extra={"readOnly": True})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, names in (
            ("kernels", [kernel.name for kernel in self.kernels]),
            ("variants", [variant.name for variant in self.variants]),
            ("mounts", [mount.name for mount in self.mounts]),
        ):
            if _twice(names):
                raise ValueError(f"{key}: a name stands twice")
        if _twice(mount.path for mount in self.mounts):
            raise ValueError("mounts: a path stands twice")
        if self.choices.memory and self.limits.memory not in self.choices.memory:
            raise ValueError(f"choices.memory lacks {self.limits.memory}, which `limits` gives")
        if self.choices.cpu and self.limits.cpu not in self.choices.cpu:
            raise ValueError(f"choices.cpu lacks {self.limits.cpu:g}, which `limits` gives")
        return self

    @property
    def slug(self) -> str:
        """Short name: the folder's."""
        return self.folder.name

    @property
    def lock(self) -> Path:
        """The hash lock that the environment is built from."""
        return self.folder / LOCK

    @property
    def smoke(self) -> Path:
        """The notebook that shows that the environment works."""
        return self.folder / SMOKE

    def variant(self, name: str) -> Variant | None:
        """The variant of this name; None when there is none."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def environment(self, variant: Variant | None = None) -> EnvironmentSpec:
        """What :class:`~jupyterhub_dmsp.profiles.environments.Environments` builds for it, or for its variant."""
        lock = self.folder / variant.lock if variant and variant.lock else self.lock
        python = (variant.python if variant else None) or self.python
        return EnvironmentSpec(self.slug, lock, python, tuple(self.kernels))

    def environments(self) -> list[EnvironmentSpec]:
        """All that may have to be built for it: its own environment and its variants'."""
        return [self.environment(variant) for variant in (None, *self.variants)]

    def open_to(self, experiments: Collection[str], groups: Collection[str] = ()) -> bool:
        """Whether a member of these experiments and of these groups of the issuer may launch it."""
        if not self.experiments and not self.groups:
            return True
        return not (set(self.experiments).isdisjoint(experiments) and set(self.groups).isdisjoint(groups))

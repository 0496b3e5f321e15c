"""The catalogue: one folder a profile, read and checked as a whole.

``<catalogue>/<slug>/`` holds ``profile.yaml`` (:class:`Profile`), ``requirements.in``, ``requirements.lock``
(what is built) and ``smoke.ipynb`` (what shows that it works; further ``smoke*.ipynb`` for further kernels).
Faults are found for all profiles in one go, one sentence each.
"""

from __future__ import annotations

import hashlib
import json
import re
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from jupyterhub_dmsp.errors import DmspError
from jupyterhub_dmsp.profiles import lock
from jupyterhub_dmsp.profiles.schema import LOCK, SMOKE, Limits, Profile
from jupyterhub_dmsp.settings import SLUG

__all__ = ["Catalogue", "CatalogueError", "Limits", "Profile", "default_path", "json_schema", "load"]

PROFILE, SOURCE = "profile.yaml", "requirements.in"


class CatalogueError(DmspError):
    """The catalogue cannot be used; ``faults`` has one sentence for each fault."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(" ".join(faults), "Profiles are described in the reference of profile.yaml.")


@dataclass(frozen=True)
class Catalogue:
    """All profiles, in the order of the launch page."""

    profiles: tuple[Profile, ...]

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)

    def get(self, slug: str) -> Profile | None:
        """The profile of this slug, None when there is none."""
        return next((profile for profile in self.profiles if profile.slug == slug), None)

    def for_experiments(self, names: Collection[str], groups: Collection[str] = ()) -> list[Profile]:
        """What a member of these experiments and of these groups of the issuer may launch."""
        return [profile for profile in self.profiles if profile.open_to(names, groups)]

    def digest(self) -> str:
        """Twelve hex digits that change with anything that a user or a session would notice."""
        about = [
            [profile.slug, profile.model_dump(mode="json"), *(e.digest() for e in profile.environments())]
            for profile in self.profiles
        ]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def default_path() -> Path:
    """The catalogue that came with us: the installed one, in a checkout the repository's folder."""
    installed = Path(sysconfig.get_path("data")) / "share" / "jupyterhub-dmsp" / "profiles"
    repository = Path(__file__).resolve().parents[2] / "profiles"
    for folder in (installed, repository):
        if folder.is_dir():
            return folder
    raise CatalogueError(["The catalogue of profiles is not installed."])


def load(path: Path | None = None, experiments: Collection[str] | None = None) -> Catalogue:
    """Read and check a catalogue.

    Args:
        path: its folder; the shipped one when None.
        experiments: names that profiles may refer to; not checked when None.

    Raises:
        CatalogueError: with one sentence for each fault of each profile.
    """
    root = path or default_path()
    try:
        folders = sorted(
            entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "_"))
        )
    except OSError as error:
        raise CatalogueError([f"The catalogue {root} cannot be read: {error.strerror}."]) from error
    profiles: list[Profile] = []
    faults: list[str] = []
    for folder in folders:
        profile, found = _read(folder, experiments)
        faults += [f"Profile {folder.name}: {fault}" for fault in found]
        if profile is not None:
            profiles.append(profile)
    if not folders:
        faults.append(f"The catalogue {root} holds no profile.")
    if faults:
        raise CatalogueError(faults)
    return Catalogue(tuple(sorted(profiles, key=lambda p: (p.order, p.name.lower(), p.slug))))


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``profile.yaml``, for editors and the reference page."""
    schema = Profile.model_json_schema()
    schema["properties"].pop("folder")
    schema["required"] = [name for name in schema["required"] if name != "folder"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(folder: Path, experiments: Collection[str] | None) -> tuple[Profile | None, list[str]]:
    faults = []
    if not re.match(SLUG, folder.name):
        faults.append("its folder's name must be small letters, digits and dashes, at most 30.")
    data, fault = _read_yaml(folder / PROFILE)
    if fault:
        return None, [*faults, fault]
    if "folder" in data:
        return None, [*faults, "`folder` is not a known key."]
    try:
        profile = Profile.model_validate({**data, "folder": folder})
    except ValidationError as error:
        return None, [*faults, *(_sentence(dict(found)) for found in error.errors())]
    if experiments is not None:
        faults += [
            f"`experiments` names {name}, which dmsp.yaml does not know."
            for name in profile.experiments
            if name not in experiments
        ]
    return profile, faults + _check_locks(profile) + _check_smoke(profile)


def _read_yaml(path: Path) -> tuple[dict[str, Any], str]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{path.name} is missing."
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error.strerror}."
    except UnicodeDecodeError:
        return {}, f"{path.name} is not UTF-8 text."
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        return {}, f"{path.name} is not YAML{where}: {getattr(error, 'problem', None) or 'unreadable'}."
    if not isinstance(data, dict):
        return {}, f"{path.name} must be a mapping of keys."
    return data, ""


def _sentence(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            return f"`{where}` is not a known key."
        case "missing":
            return f"`{where}` is missing."
        case "string_type" if where == "python":
            return "`python` must be quoted, such as '3.11'."
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"`{where}` {text[0].lower()}{text[1:]}." if where else f"{text}."


def _check_locks(profile: Profile) -> list[str]:
    """The profile's own lock and its variants'."""
    wanted = {"pip"} | {"ipykernel" for kernel in profile.kernels if kernel.language == "python"}
    made = lock.faults(profile.lock, wanted, profile.highlights)
    for other in sorted({v.lock for v in profile.variants if v.lock} - {LOCK}):
        made += lock.faults(profile.folder / other, wanted)
    return made


def _check_smoke(profile: Profile) -> list[str]:
    try:
        notebook = json.loads(profile.smoke.read_text(encoding="utf-8"))
        kernel = notebook["metadata"]["kernelspec"]["name"]
    except FileNotFoundError:
        return [f"{SMOKE} is missing."]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{SMOKE} is not a notebook that names its kernel."]
    if kernel not in {offered.name for offered in profile.kernels}:
        return [f"{SMOKE} asks for the kernel {kernel}, which the profile does not offer."]
    return []

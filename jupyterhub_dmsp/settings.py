"""``dmsp.yaml``: the one configuration, read by the box, mounted by the chart, passed by Terraform.

The schema is these models; ``dmsp config schema`` prints it as JSON Schema. Unknown keys, wrong types and
impossible values get one sentence each (:class:`SettingsError`). Secrets are references
(``file:/path`` or ``env:NAME``), never values.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from jupyterhub_dmsp.errors import DmspError

SLUG = r"^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$"
RUCIO_SCOPE = r"^[a-zA-Z0-9_.-]{1,25}$"
# Rucio's limits: a scope (`user.<name>`) has 25 characters, the key of an attribute (`experiment-<name>`) 30.
USER_LENGTH = 20
EXPERIMENT_LENGTH = 19
PresetName = Literal["iam", "wlcg", "keycloak", "egi", "generic"]
EGI_NAMESPACES = ("urn:mace:egi.eu", "urn:geant:egi.eu")
RSE = r"^[A-Z0-9]+([_-][A-Z0-9]+)*$"


class SettingsError(DmspError):
    """``dmsp.yaml`` cannot be used; the message lists one sentence for each fault."""

    def __init__(self, source: str, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(f"{source}: " + " ".join(faults), "`dmsp config schema` shows what is allowed.")


def _url(value: str) -> str:
    TypeAdapter(HttpUrl).validate_python(value)
    return value


def _secret(value: str) -> str:
    if not re.match(r"^(file:/|env:[A-Za-z_][A-Za-z0-9_]*$)", value):
        raise ValueError("must be a reference, file:/path or env:NAME, never the secret itself")
    return value


Url = Annotated[str, AfterValidator(_url), Field(json_schema_extra={"format": "uri"})]
SecretRef = Annotated[
    str,
    AfterValidator(_secret),
    Field(json_schema_extra={"pattern": r"^(file:/.+|env:[A-Za-z_][A-Za-z0-9_]*)$"}),
]


def read_secret(reference: str) -> str:
    """The value behind a ``file:`` or ``env:`` reference; raises :class:`DmspError` when it is not there."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        try:
            return os.environ[name]
        except KeyError:
            raise DmspError(f"The environment variable {name} is not set.", "dmsp.yaml refers to it.") from None
    try:
        return Path(name).read_text().strip()
    except OSError as error:
        raise DmspError(f"The secret file {name} cannot be read: {error.strerror}.") from error


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(Section):
    """What people see of the installation."""

    name: str = Field(
        "Dark Matter Science Project",
        min_length=1,
        max_length=80,
        description="Shown on the login and launch pages.",
    )
    description: str = Field(
        "Virtual Research Environment", max_length=400, description="A line below the name."
    )
    support: str = Field("", max_length=200, description="Whom users ask for help: an address or a page.")


class Audience(Section):
    """A service that sessions obtain tokens for."""

    name: str = Field(min_length=1, description="As it stands in `aud`.")
    scopes: list[str] = Field(
        [], description="The scopes that its tokens have: no more than it needs. All of the login's when empty."
    )


class Identity(Section):
    """Who logs in, and what the identity provider calls things."""

    issuer: Url | None = Field(
        None,
        description="OIDC issuer, exactly as it stands in `iss`. The box runs its own when this is empty.",
    )
    name: str = Field(
        "",
        max_length=60,
        description="What the login button calls it; the host's name or the site's when empty.",
    )
    client_id: str = Field("jupyterhub", min_length=1, description="The hub's client at the issuer.")
    client_secret: SecretRef | None = Field(None, description="Reference to the client's secret.")
    preset: PresetName = Field(
        "wlcg",
        description="What the provider's claims look like: INDIGO IAM, the WLCG profile, Keycloak, EGI Check-in, or a"
        " plain `groups` list. It gives the three keys below their values.",
    )
    scopes: list[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]] = Field(
        [], description="Scopes that a login asks for; the preset's when empty."
    )
    username_claim: str = Field(
        "", description="Claim that gives the user name and the Rucio account; the preset's when empty."
    )
    groups_claim: str = Field(
        "", description="Claim that lists the groups (its dots do not nest); the preset's when empty."
    )
    entitlement_namespaces: list[str] = Field(
        list(EGI_NAMESPACES),
        description="Namespaces of entitlements that count as groups, with the preset `egi`.",
    )
    allowed_groups: list[str] = Field(
        ["/dmsp"],
        description="Members of any of these may log in; an empty list admits everybody whom the issuer knows.",
    )
    admin_groups: list[str] = Field(["/dmsp/admins"], description="Members of any of these administer the hub.")
    audiences: list[str | Audience] = Field(
        [Audience(name="rucio", scopes=["openid", "profile"])],
        description="Audiences for which a session may obtain tokens (RFC 8693 exchange): a name, or a name with the"
        " scopes that are asked for it.",
    )
    revoke_at: list[Literal["logout", "last-server"]] = Field(
        ["logout", "last-server"],
        description="When a login's tokens are revoked and forgotten: at a logout without running servers, and after a"
        " user's last server has stopped.",
    )
    token_requests: int = Field(
        120,
        ge=0,
        description="How often in a minute one user's servers may ask for tokens; 0: as often as they like.",
    )
    refresh_leeway: int = Field(
        30, ge=1, le=3600, description="Refresh when fewer seconds are left on a token."
    )

    @property
    def offered(self) -> dict[str, str]:
        """The audiences, and for each the scopes that are asked; empty where none are named."""
        found = [Audience(name=a) if isinstance(a, str) else a for a in self.audiences]
        return {audience.name: " ".join(audience.scopes) for audience in found}


class Lake(Section):
    """The Rucio data lake, and where its scratch is seen."""

    name: str = Field(
        "DMSP data lake", min_length=1, max_length=80, description="Shown at the root of the sidebar's tree."
    )
    rucio_url: Url | None = Field(None, description="Rucio server. The box runs its own when this is empty.")
    auth_url: Url | None = Field(None, description="Rucio authentication server; `rucio_url` when empty.")
    scratch_rse: Annotated[str, Field(pattern=RSE, max_length=30)] = Field(
        "SCRATCH", description="RSE to which *Attach* replicates."
    )
    mount: str = Field(
        "/scratch/lake", pattern=r"^(/[^/]+)+$", description="Where sessions see the scratch RSE."
    )
    prefix: str = Field(
        "",
        description="Path prefix of the scratch RSE's PFNs that `mount` replaces; asked from Rucio when empty.",
    )
    rule_lifetime: int = Field(
        14 * 86400, ge=60, le=366 * 86400, description="Seconds that an attached dataset stays on scratch."
    )
    mode: Literal["replica", "download"] = Field(
        "replica", description="`replica`: through a mounted scratch RSE. `download`: into the user's space."
    )


class Experiment(Section):
    """A collaboration: whose members they are, which scopes of the lake are theirs."""

    name: Annotated[str, Field(pattern=SLUG, max_length=EXPERIMENT_LENGTH)] = Field(
        description="Short name, used for POSIX groups and account attributes; at most 19 characters, because Rucio's"
        " key of the attribute `experiment-<name>` holds 30."
    )
    title: str = Field("", max_length=80, description="As people write it; `name` when empty.")
    groups: list[str] = Field([], description="Members of any of these groups belong to it; empty: everybody.")
    scopes: list[Annotated[str, Field(pattern=RUCIO_SCOPE)]] = Field(
        [], description="Rucio scopes that only its members may replicate and read on scratch."
    )
    embargo: str = Field(
        "", max_length=400, description="A sentence shown with its data, such as the publication rule."
    )


class Profiles(Section):
    """The catalogue of environments."""

    path: Path | None = Field(
        None, description="Folder of the catalogue, one folder a profile; the shipped one when empty."
    )
    default: Annotated[str, Field(pattern=SLUG)] = Field(
        "minimal", description="Preselected for a user who has not launched one yet."
    )


class Sessions(Section):
    """How many sessions there may be, and what must be there before one starts."""

    named: int = Field(
        3,
        ge=0,
        le=20,
        description="Named servers that a user may have beside their own, so that profiles run side by side; 0 for"
        " none. Without root there is one session only.",
    )
    overcommit: float | None = Field(
        8.0,
        gt=0,
        le=100,
        description="How many times the machine's memory may be promised to sessions: most use far less than they"
        " may. A start beyond that is refused. Empty: no check. For one machine; a cluster has its own scheduler.",
    )
    home_free: int = Field(
        256 * 1024**2,
        ge=0,
        description="Bytes that must be free on the disk with the home folders before a session starts; 0 for no"
        " check. A home with a quota of its own that is used up is a warning only: tidying up takes a session.",
    )
    scratch_wait: int = Field(
        15,
        ge=0,
        le=300,
        description="Seconds that a start waits for a scratch mount that does not answer. After that the session"
        " starts without it.",
    )


class Idle(Section):
    """When the hub ends a session in which nothing happens.

    Something happens while somebody works in the browser, a kernel is busy, data are on their way to an attachment, a
    program uses the processor, or a lease holds.
    """

    timeout: int = Field(
        86400, ge=0, description="Seconds without activity after which a session is ended; 0: never."
    )
    profiles: dict[Annotated[str, Field(pattern=SLUG)], Annotated[int, Field(ge=0)]] = Field(
        {}, description="Another `timeout` for sessions of some profiles, such as `{root: 7200}`."
    )
    warning: int = Field(900, ge=0, description="Seconds before such an end at which the hub's log says so.")
    max_age: int = Field(
        0, ge=0, description="Seconds after its start at which any session is ended, busy or not; 0: never."
    )

    def timeout_of(self, profile: str) -> int:
        """Seconds that hold for sessions of this profile."""
        return self.profiles.get(profile, self.timeout)


class Service(Section):
    """A neighbour service that sessions may use."""

    enabled: bool = Field(False, description="Offer it in sessions.")
    url: Url | None = Field(None, description="Its address.")

    @model_validator(mode="after")
    def _has_url(self) -> Service:
        if self.enabled and self.url is None:
            raise ValueError("is enabled and has no url")
        return self


class User(Section):
    """A user of the box's own issuer."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]+$", max_length=USER_LENGTH)] = Field(
        description="User name and Rucio account; at most 20 characters, because Rucio's scope `user.<name>` holds 25."
    )
    full_name: str = Field("", max_length=80, description="As shown; `name` when empty.")
    email: str = Field("", max_length=120, description="Address; `name`@localhost when empty.")
    groups: list[str] = Field([], description="WLCG groups, such as /dmsp/km3net.")


LogLevel = Literal["debug", "info", "warning", "error"]
LogPart = Literal["box", "database", "issuer", "rucio", "daemons", "proxy", "hub", "sessions"]


class Log(Section):
    """What the parts write into their logs, and how."""

    format: Literal["text", "json"] = Field(
        "text",
        description="One event a line: `text` for people, `json` (one object a line) for programs that collect logs.",
    )
    level: LogLevel = Field(
        "info",
        description="The least that is written. `debug` is about the project's own modules: events of libraries at that"
        " level may hold secrets.",
    )
    levels: dict[LogPart, LogLevel] = Field(
        {}, description="Another level for some parts, such as `{hub: debug}`."
    )

    def of(self, part: LogPart) -> LogLevel:
        """The level of a part."""
        return self.levels.get(part, self.level)


class Box(Section):
    """What only the embedded VRE needs."""

    users: list[User] = Field(
        default_factory=lambda: [
            User(name="km3net-user", full_name="KM3NeT demo user", groups=["/dmsp", "/dmsp/km3net"]),
            User(name="collider-user", full_name="Collider demo user", groups=["/dmsp", "/dmsp/collider"]),
            User(
                name="vre-admin",
                full_name="VRE demo admin",
                groups=["/dmsp", "/dmsp/km3net", "/dmsp/collider", "/dmsp/admins"],
            ),
        ],
        description="Users of the embedded issuer; passwords are generated once and shown by `dmsp users`.",
    )
    token_lifetime: int = Field(
        3600, ge=20, le=86400, description="Seconds that the embedded issuer's access tokens live."
    )
    site_rses: list[Annotated[str, Field(pattern=RSE, max_length=30)]] = Field(
        ["SITE-NORTH", "SITE-SOUTH", "SITE-WEST"], min_length=1, description="Site RSEs of the demo lake."
    )
    transfers: int = Field(4, ge=1, le=64, description="Copies that run at the same time.")
    session_internet: bool = Field(True, description="Whether sessions may reach the outside network.")
    scratch_limit: int | None = Field(
        None, ge=1_000_000, description="Bytes that scratch may hold; what its disk has when this is empty."
    )
    scratch_high: int = Field(
        90,
        ge=1,
        le=100,
        description="Per cent of that above which data are released, least recently used first.",
    )
    scratch_low: int = Field(80, ge=0, le=100, description="Per cent at which releasing ends.")
    scratch_notice: int = Field(
        900,
        ge=10,
        le=30 * 86400,
        description="Seconds that a running session is told ahead when what it has attached must go.",
    )

    @model_validator(mode="after")
    def _marks(self) -> Box:
        if self.scratch_low > self.scratch_high:
            raise ValueError("has a scratch_low above its scratch_high")
        return self

    @model_validator(mode="after")
    def _unique(self) -> Box:
        names = [user.name for user in self.users]
        if len(set(names)) < len(names):
            raise ValueError("names a user twice")
        return self


DEMO_EXPERIMENTS = [
    # The scope `scale` is there once `dmsp demo --scale` has made it.
    Experiment(name="dmsp", title="Dark Matter Science Project", groups=[], scopes=["dmsp", "scale"]),
    Experiment(name="km3net", title="KM3NeT", groups=["/dmsp/km3net"], scopes=["km3net"]),
    Experiment(name="collider", title="Collider", groups=["/dmsp/collider"], scopes=["collider"]),
]


class Settings(Section):
    """The whole of ``dmsp.yaml``."""

    site: Site = Field(default_factory=Site)
    identity: Identity = Field(default_factory=Identity)
    lake: Lake = Field(default_factory=Lake)
    experiments: list[Experiment] = Field(
        default_factory=lambda: list(DEMO_EXPERIMENTS), description="The collaborations that share the lake."
    )
    profiles: Profiles = Field(default_factory=Profiles)
    sessions: Sessions = Field(default_factory=Sessions)
    idle: Idle = Field(default_factory=Idle)
    dask: Service = Field(default_factory=Service)
    reana: Service = Field(default_factory=Service)
    log: Log = Field(default_factory=Log)
    box: Box = Field(default_factory=Box)

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [experiment.name for experiment in self.experiments]
        if len(set(names)) < len(names):
            raise ValueError("experiments: a name stands twice")
        scopes = [scope for experiment in self.experiments for scope in experiment.scopes]
        if len(set(scopes)) < len(scopes):
            raise ValueError("experiments: a scope belongs to one experiment only")
        return self

    def experiments_of(self, groups: set[str]) -> list[Experiment]:
        """The experiments that somebody with these groups belongs to; open ones are everybody's."""
        return [e for e in self.experiments if not e.groups or groups & set(e.groups)]


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"] if part != "[key]") or "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"`{where}` is not a known key."
        case "missing":
            return f"`{where}` is missing."
        case _:
            text = error["msg"].removeprefix("Value error, ")
            return f"`{where}` {text[0].lower() + text[1:]}."


def parse(data: Any, source: str = "dmsp.yaml") -> Settings:
    """Settings from plain data; raises :class:`SettingsError` with one sentence for each fault."""
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SettingsError(source, ["the file must be a mapping of sections."])
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise SettingsError(source, [_sentence(e) for e in error.errors()]) from error


def load(path: Path | None) -> Settings:
    """Read ``dmsp.yaml``; the defaults (the demo VRE) when no path is given."""
    if path is None:
        return Settings()
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(str(path), [f"cannot be read: {error.strerror}."]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), ["is not UTF-8 text."]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SettingsError(str(path), [f"is not YAML: {where}{getattr(error, 'problem', error)}."]) from error
    return parse(data, str(path))


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``dmsp.yaml``; the chart's ``values.schema.json`` and the reference page come from it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}

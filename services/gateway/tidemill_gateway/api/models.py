"""What the API shows and takes. These are its own shapes: they stay when the messages inside change.

What is shown are dataclasses: a list of 1,000 apps takes a tenth of the time that models would.
"""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tidemill._wire.apps import AppInfo
from tidemill._wire.control import FunctionHandle
from tidemill._wire.deploying import DeploymentInfo, FunctionInfo
from tidemill._wire.environments import EnvironmentInfo
from tidemill._wire.schedules import ScheduleInfo
from tidemill._wire.secrets import SecretInfo

Item = TypeVar("Item")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,63}$")]
NOTHING_ELSE: Any = {"additionalProperties": False}  # of a map whose keys have a pattern
Strategy = Literal["rolling", "recreate"]
AppState = Literal["ephemeral", "detached", "deployed", "stopped"]


class Given(BaseModel):
    """Something that a request says. What it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def moment(unix: float) -> datetime:
    """Return a unix time as it is shown."""
    return datetime.fromtimestamp(unix, UTC)


def fields_of(shown: Any) -> dict[str, Any]:
    """Return the fields of something shown, for what shows more than that."""
    return {field.name: getattr(shown, field.name) for field in fields(shown)}


def perhaps(unix: float | None) -> datetime | None:
    """Return a time that may not be there."""
    return None if unix is None else moment(unix)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list. `next_cursor` leads to the next one; on the last it is null."""

    items: list[Item]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class App:
    """An app. Only a deployed one can be called by name."""

    id: str
    name: str | None
    description: str
    state: AppState
    environment: str
    version: int
    functions: int
    tags: dict[str, str]
    created: datetime
    created_by: str
    stopped: datetime | None
    stop_reason: str
    stopped_by: str

    @classmethod
    def of(cls, info: AppInfo) -> "App":
        """Return it as it is shown."""
        return cls(
            id=info.app_id,
            name=info.name,
            description=info.description,
            state=info.state,  # type: ignore[arg-type]  # the registry says nothing else
            environment=info.environment,
            version=info.version,
            functions=info.functions,
            tags=info.tags,
            created=moment(info.created),
            created_by=info.created_by,
            stopped=perhaps(info.stopped),
            stop_reason=info.stop_reason,
            stopped_by=info.stopped_by,
        )


@dataclass(frozen=True, slots=True)
class AppFunction:
    """A function of an app's present version."""

    id: str
    name: str
    is_generator: bool
    timeout: Annotated[float, Field(description="seconds")]
    web_url: str | None
    methods: Annotated[list[str] | None, Field(description="of a class; null for a function")]
    web_urls: Annotated[dict[str, str], Field(description="of the methods of a class that answer the web")]

    @classmethod
    def of(cls, handle: FunctionHandle) -> "AppFunction":
        """Return it as it is shown."""
        return cls(
            id=handle.function_id,
            name=handle.name,
            is_generator=handle.is_generator,
            timeout=handle.timeout,
            web_url=handle.web_url,
            methods=None if handle.methods is None else list(handle.methods),
            web_urls=handle.web_urls(),
        )


@dataclass(frozen=True, slots=True)
class AppDetails(App):
    """An app with its functions."""

    present_functions: list[AppFunction]


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version of an app. `rolled_back_to` is the version whose functions it took over."""

    version: int
    created: datetime
    tag: str
    strategy: str
    client_version: str
    deployed_by: str
    rolled_back_to: int | None
    functions: list[str]
    current: bool

    @classmethod
    def of(cls, info: DeploymentInfo) -> "Deployment":
        """Return it as it is shown."""
        return cls(
            version=info.version,
            created=moment(info.created),
            tag=info.tag,
            strategy=info.strategy,
            client_version=info.client_version,
            deployed_by=info.deployed_by,
            rolled_back_to=info.rolled_back_to,
            functions=list(info.functions),
            current=info.current,
        )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A version that was just made, or the present one where nothing would change (`skipped`)."""

    app_id: str
    version: int
    skipped: bool
    functions: list[str]
    removed: list[str]


@dataclass(frozen=True, slots=True)
class Function:
    """A function with what it asks for. Durations are seconds, memory MiB."""

    id: str
    name: str
    app_id: str
    app_name: str | None
    environment: str
    pool: str
    version: int
    is_generator: bool
    timeout: float
    cpu: float
    memory: int
    gpus: Annotated[list[str], Field(description="in the order of preference, as `type:count`")]
    min_containers: int
    max_containers: int | None
    max_retries: int
    schedule: dict[str, Any] | None
    web_url: str | None
    methods: Annotated[list[str] | None, Field(description="of a class; null for a function")]
    web_urls: Annotated[dict[str, str], Field(description="of the methods of a class that answer the web")]

    @classmethod
    def of(cls, info: FunctionInfo) -> "Function":
        """Return it as it is shown."""
        spec = info.spec
        return cls(
            id=info.function_id,
            name=info.name,
            app_id=info.app_id,
            app_name=info.app_name,
            environment=info.environment,
            pool=info.pool,
            version=info.version,
            is_generator=spec.is_generator,
            timeout=spec.timeout,
            cpu=spec.resources.cpu,
            memory=spec.resources.memory,
            gpus=[f"{kind}:{count}" for kind, count in spec.resources.gpus],
            min_containers=spec.autoscaling.min_containers,
            max_containers=spec.autoscaling.max_containers,
            max_retries=spec.retries.max_retries,
            schedule=spec.schedule,
            web_url=info.web_url,
            methods=None if spec.cls is None else [method.name for method in spec.cls.methods],
            web_urls=info.web_urls,
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment. `apps` counts the deployed ones."""

    id: str
    name: str
    web_suffix: str
    apps: int
    created: datetime

    @classmethod
    def of(cls, info: EnvironmentInfo) -> "Environment":
        """Return it as it is shown."""
        return cls(
            id=info.environment_id,
            name=info.name,
            web_suffix=info.web_suffix,
            apps=info.apps,
            created=moment(info.created),
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret: its name and keys. Values are never shown."""

    id: str
    name: str | None
    environment: str
    keys: list[str]
    created: datetime
    updated: datetime
    last_used: datetime | None
    created_by: str
    updated_by: str

    @classmethod
    def of(cls, info: SecretInfo) -> "Secret":
        """Return it as it is shown."""
        return cls(
            id=info.secret_id,
            name=info.name,
            environment=info.environment,
            keys=list(info.keys),
            created=moment(info.created),
            updated=moment(info.updated),
            last_used=perhaps(info.last_used),
            created_by=info.created_by,
            updated_by=info.updated_by,
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of a deployed function."""

    id: str
    app_id: str
    app_name: str | None
    environment: str
    function: str
    schedule: str
    next: datetime | None
    last: datetime | None
    last_call: str

    @classmethod
    def of(cls, info: ScheduleInfo) -> "Schedule":
        """Return it as it is shown."""
        return cls(
            id=info.schedule_id,
            app_id=info.app_id,
            app_name=info.app_name,
            environment=info.environment,
            function=info.function,
            schedule=info.text,
            next=perhaps(info.next),
            last=perhaps(info.last),
            last_call=info.last_call,
        )


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    hint: str | None = None

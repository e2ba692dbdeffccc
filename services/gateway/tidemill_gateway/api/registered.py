"""Functions, schedules, environments and secrets: what the registry keeps."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, status
from pydantic import Field, StringConstraints

from tidemill._wire import control, deploying, environments, schedules, secrets
from tidemill_gateway.api.answering import (
    Cursor,
    Environment,
    Limit,
    Requester,
    change,
    check_unchanged,
    show,
    show_page,
)
from tidemill_gateway.api.models import NOTHING_ELSE, Function, Given, Name, Page, Schedule, Secret
from tidemill_gateway.api.models import Environment as ShownEnvironment
from tidemill_gateway.sessions import Session

router = APIRouter()

NameRef = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
AnyEnvironment = Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{0,64}$", description="without it all")]
AnyApp = Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{0,64}$", description="an app's id or name")]
MAX_VALUE = 65_536  # characters of a secret's value
Suffix = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)?$")]
Key = Annotated[str, StringConstraints(pattern=r"^[^=\x00]{1,256}$")]
Value = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=MAX_VALUE)]


class NewEnvironment(Given):
    """An environment to make."""

    name: Name
    web_suffix: Suffix = ""


class EnvironmentChange(Given):
    """What is to change of an environment."""

    name: Name | None = None
    web_suffix: Suffix | None = None


class SecretValues(Given):
    """The values of a secret, by key: all of them, or with `merge` those to add."""

    values: Annotated[dict[Key, Value], Field(json_schema_extra=NOTHING_ELSE)]
    merge: bool = False


@router.get("/functions", response_model=Page[Function], tags=["functions"])
async def list_functions(
    request: Request,
    requester: Requester,
    environment: AnyEnvironment = "",
    app: AnyApp = "",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the present functions of apps that live, by app and name."""
    wanted = deploying.FindFunctions(environment, app, limit, cursor)
    found = await requester.page("find_functions", wanted, deploying.FunctionPage, cursor)
    return show_page(request, [Function.of(info) for info in found.functions], found.cursor)


@router.get("/schedules", response_model=Page[Schedule], tags=["schedules"])
async def list_schedules(
    request: Request,
    requester: Requester,
    environment: AnyEnvironment = "",
    app: AnyApp = "",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the schedules of deployed functions."""
    wanted = schedules.ListSchedules(environment, app, limit, cursor)
    found = await requester.page("list_schedules", wanted, schedules.ScheduleList, cursor)
    return show_page(request, [Schedule.of(info) for info in found.schedules], found.cursor)


# --- environments


@router.get("/environments", response_model=Page[ShownEnvironment], tags=["environments"])
async def list_environments(request: Request, requester: Requester) -> Response:
    """List the environments of the workspace, by name."""
    asked = environments.ListEnvironments()
    found = await requester.registry("list_environments", asked, environments.EnvironmentList)
    shown = [ShownEnvironment.of(info) for info in found.environments]
    return show_page(request, shown, "")


@router.post("/environments", response_model=ShownEnvironment, status_code=201, tags=["environments"])
async def create_environment(requester: Requester, new: NewEnvironment) -> ShownEnvironment:
    """Make an environment."""
    wanted = environments.CreateEnvironment(new.name, new.web_suffix)
    made = await requester.registry("create_environment", wanted, environments.EnvironmentInfo)
    return ShownEnvironment.of(made)


@router.patch("/environments/{name}", response_model=ShownEnvironment, tags=["environments"])
async def change_environment(
    requester: Requester, name: NameRef, given: EnvironmentChange
) -> ShownEnvironment:
    """Rename an environment, or change its suffix."""
    wanted = environments.UpdateEnvironment(name, given.name or "", given.web_suffix)
    changed = await requester.registry("update_environment", wanted, environments.EnvironmentInfo)
    return ShownEnvironment.of(changed)


@router.delete("/environments/{name}", status_code=204, tags=["environments"])
async def delete_environment(requester: Requester, name: NameRef) -> Response:
    """Stop an environment's apps and delete it with its secrets. The last one stays."""
    await requester.registry("delete_environment", environments.DeleteEnvironment(name), control.Done)
    return Response(status_code=204)


# --- secrets


@router.get("/secrets", response_model=Page[Secret], tags=["secrets"])
async def list_secrets(
    request: Request,
    requester: Requester,
    environment: Environment = "main",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the secrets of an environment by name, without their values."""
    found = await requester.page(
        "list_secrets", secrets.ListSecrets(environment, limit, cursor), secrets.SecretList, cursor
    )
    return show_page(request, [Secret.of(info) for info in found.secrets], found.cursor)


@router.get("/secrets/{name}", response_model=Secret, tags=["secrets"])
async def get_secret(
    request: Request, requester: Requester, name: NameRef, environment: Environment = "main"
) -> Response:
    """Show what is known of a secret: its keys, and when it was used."""
    return show(request, await _secret(requester, name, environment))


@router.put("/secrets/{name}", response_model=Secret, tags=["secrets"])
async def put_secret(
    request: Request,
    requester: Requester,
    name: NameRef,
    given: SecretValues,
    environment: Environment = "main",
) -> Secret:
    """Make a secret, or replace or extend its values. With `If-None-Match: *` only make it."""
    only_new = request.headers.get("if-none-match", "").strip() == "*"
    present = await _checked_secret(request, requester, name, environment)
    wanted = secrets.PutSecret(
        name, given.values, environment, overwrite=not only_new, merge=given.merge, seen=present
    )
    putting = requester.registry("put_secret", wanted, secrets.SecretInfo)
    return Secret.of(await change(request, putting, lambda: _secret(requester, name, environment)))


async def _checked_secret(
    request: Request, requester: Session, name: str, environment: str
) -> secrets.SecretInfo | None:
    """Return the secret that If-Match is about, if there is one."""
    if "if-match" not in request.headers:
        return None
    present = await requester.registry("get_secret", secrets.GetSecret(name, environment), secrets.SecretInfo)
    check_unchanged(request, Secret.of(present))
    return present


async def _secret(requester: Session, name: str, environment: str) -> Secret:
    found = await requester.registry("get_secret", secrets.GetSecret(name, environment), secrets.SecretInfo)
    return Secret.of(found)


@router.delete("/secrets/{name}", status_code=status.HTTP_204_NO_CONTENT, tags=["secrets"])
async def delete_secret(
    request: Request, requester: Requester, name: NameRef, environment: Environment = "main"
) -> Response:
    """Delete a secret. Containers that have started keep what they were given."""
    present = await _checked_secret(request, requester, name, environment)
    wanted = secrets.DeleteSecret(name, environment, seen=present)
    deleting = requester.registry("delete_secret", wanted, control.Done)
    await change(request, deleting, lambda: _secret(requester, name, environment))
    return Response(status_code=204)

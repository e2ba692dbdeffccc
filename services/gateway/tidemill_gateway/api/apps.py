"""Apps, their versions and their tags."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from tidemill import exception
from tidemill._wire import apps, control, deploying
from tidemill_gateway.api.answering import (
    Cursor,
    Environment,
    Limit,
    Requester,
    change,
    check_unchanged,
    seen,
    show,
    show_page,
)
from tidemill_gateway.api.models import (
    NOTHING_ELSE,
    App,
    AppDetails,
    AppFunction,
    AppState,
    Deployed,
    Deployment,
    Given,
    Page,
    Strategy,
    Tag,
    fields_of,
)
from tidemill_gateway.sessions import Session

router = APIRouter(tags=["apps"])

CHANGE_TRIES = 5  # of a change that others are always faster with
ROLLBACK_TIMEOUT = 30.0  # seconds: the version waits for its containers for up to 10 of them

AppRef = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="an app's id (`ap-…`), or the name of a deployed one"
    ),
]


class TagsChange(Given):
    """New values for some tags; null removes one."""

    tags: Annotated[dict[Tag, Tag | None], Field(json_schema_extra=NOTHING_ELSE)]


class RollbackOrder(Given):
    """Which version to deploy again; without `version` the one before the present one."""

    version: Annotated[int, Query(ge=1)] | None = None
    strategy: Strategy = "rolling"


class RolloverOrder(Given):
    """How the new containers take over."""

    strategy: Strategy = "rolling"


@router.get("/apps", response_model=Page[App])
async def list_apps(
    request: Request,
    requester: Requester,
    environment: Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = "",
    state: Annotated[list[AppState] | None, Query(description="without it all that are not stopped")] = None,
    name: Annotated[
        str, Query(pattern=r"^[^\x00]{0,64}$", description="must be contained in the app's name")
    ] = "",
    tag: Annotated[
        list[Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{1,63}=[A-Za-z0-9_.-]{1,63}$")]] | None,
        Query(description="`key=value`"),
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the apps of all environments or of one, newest first."""
    wanted = deploying.FindApps(
        environment=environment,
        name=name,
        tags=dict(each.split("=", 1) for each in tag or ()),
        limit=limit,
        cursor=cursor,
        **({"states": tuple(state)} if state else {}),
    )
    found = await requester.page("find_apps", wanted, deploying.AppPage, cursor)
    return show_page(request, [App.of(info) for info in found.apps], found.cursor)


@router.get("/apps/{app}", response_model=AppDetails)
async def get_app(
    request: Request, requester: Requester, app: AppRef, environment: Environment = "main"
) -> Response:
    """Show one app with its functions."""
    return show(request, await _details(requester, app, environment))


@router.patch("/apps/{app}", response_model=AppDetails)
async def change_app(
    request: Request, requester: Requester, app: AppRef, wanted: TagsChange, environment: Environment = "main"
) -> Response:
    """Set and remove tags."""
    for _ in range(CHANGE_TRIES):
        found = await _found(requester, app, environment)
        check_unchanged(request, _shown(found))
        present = found.app
        merged = {**present.tags, **wanted.tags}
        tags = {key: value for key, value in merged.items() if value is not None}
        try:
            order = deploying.SetTags(present.app_id, tags, environment, present)
            await requester.registry("set_tags", order, deploying.Tags)
        except exception.ConflictError:
            if (await _found(requester, present.app_id, environment)).app == present:
                raise
            continue  # somebody else was faster: theirs stays, ours is added
        return show(request, await _details(requester, present.app_id, environment))
    raise exception.ConflictError("the app changes all the time", hint="try again in a moment")


@router.delete("/apps/{app}", status_code=204)
async def stop_app(
    request: Request,
    requester: Requester,
    app: AppRef,
    environment: Environment = "main",
    reason: Annotated[str, Query(pattern=r"^[^\x00]{0,200}$")] = "",
) -> Response:
    """Stop an app: its containers end, and its name is free again."""
    found = await _found(requester, app, environment)
    check_unchanged(request, _shown(found))
    app_id = found.app.app_id
    wanted = deploying.StopDeployed(app_id, environment, reason, seen(request, found.app))
    stopping = requester.registry("stop_deployed", wanted, control.Done)
    await change(request, stopping, lambda: _details(requester, app_id, environment))
    return Response(status_code=204)


@router.get("/apps/{app}/deployments", response_model=Page[Deployment])
async def list_deployments(
    request: Request,
    requester: Requester,
    app: AppRef,
    environment: Environment = "main",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the versions of an app, newest first."""
    wanted = deploying.ListDeployments(app, environment, limit, cursor)
    found = await requester.page("list_deployments", wanted, deploying.DeploymentList, cursor)
    return show_page(request, [Deployment.of(info) for info in found.deployments], found.cursor)


@router.post("/apps/{app}/rollback", response_model=Deployed)
async def roll_back(
    request: Request,
    requester: Requester,
    app: AppRef,
    order: RollbackOrder | None = None,
    environment: Environment = "main",
) -> Deployed:
    """Deploy the functions of an earlier version again, as a new version."""
    present = await _checked(request, requester, app, environment)
    order = order or RollbackOrder()
    wanted = deploying.RollbackApp(app, environment, order.version, order.strategy, present)
    going = requester.registry("rollback_app", wanted, deploying.AppDeployed, ROLLBACK_TIMEOUT)
    return _deployed(await change(request, going, lambda: _details(requester, app, environment)))


@router.post("/apps/{app}/rollover", response_model=Deployed)
async def roll_over(
    request: Request,
    requester: Requester,
    app: AppRef,
    order: RolloverOrder | None = None,
    environment: Environment = "main",
) -> Deployed:
    """Replace all containers by new ones with the same code, as a new version."""
    present = await _checked(request, requester, app, environment)
    wanted = deploying.RolloverApp(app, environment, (order or RolloverOrder()).strategy, present)
    going = requester.registry("rollover_app", wanted, deploying.AppDeployed)
    return _deployed(await change(request, going, lambda: _details(requester, app, environment)))


async def _checked(request: Request, requester: Session, app: str, environment: str) -> apps.AppInfo | None:
    """Return the app that If-Match is about, if there is one."""
    if "if-match" not in request.headers:
        return None
    found = await _found(requester, app, environment)
    check_unchanged(request, _shown(found))
    return found.app


async def _details(requester: Session, app: str, environment: str) -> AppDetails:
    return _shown(await _found(requester, app, environment))


async def _found(requester: Session, app: str, environment: str) -> apps.AppDetails:
    by_id = app.startswith("ap-")
    wanted = apps.GetApp(app_id=app) if by_id else apps.GetApp(name=app, environment=environment)
    return await requester.registry("get_app", wanted, apps.AppDetails)


def _shown(found: apps.AppDetails) -> AppDetails:
    functions = [AppFunction.of(handle) for _, handle in sorted(found.handles.items())]
    return AppDetails(**fields_of(App.of(found.app)), present_functions=functions)


def _deployed(answer: deploying.AppDeployed) -> Deployed:
    return Deployed(
        app_id=answer.app_id,
        version=answer.version,
        skipped=answer.skipped,
        functions=sorted(answer.handles),
        removed=list(answer.removed),
    )

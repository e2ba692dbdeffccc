"""Apps, their versions and their tags."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from tidemill._wire import apps, control, deploying
from tidemill_gateway.api.answering import (
    Cursor,
    Environment,
    Limit,
    Requester,
    check_unchanged,
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
    request: Request, requester: Requester, app: AppRef, change: TagsChange, environment: Environment = "main"
) -> Response:
    """Set and remove tags."""
    present = await _details(requester, app, environment)
    check_unchanged(request, present)
    merged = {**present.tags, **change.tags}
    tags = {key: value for key, value in merged.items() if value is not None}
    await requester.registry("set_tags", deploying.SetTags(present.id, tags, environment), deploying.Tags)
    return show(request, await _details(requester, present.id, environment))


@router.delete("/apps/{app}", status_code=204)
async def stop_app(
    request: Request,
    requester: Requester,
    app: AppRef,
    environment: Environment = "main",
    reason: Annotated[str, Query(pattern=r"^[^\x00]{0,200}$")] = "",
) -> Response:
    """Stop an app: its containers end, and its name is free again."""
    present = await _details(requester, app, environment)
    check_unchanged(request, present)
    await requester.registry(
        "stop_deployed", deploying.StopDeployed(present.id, environment, reason), control.Done
    )
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
    await _check(request, requester, app, environment)
    order = order or RollbackOrder()
    wanted = deploying.RollbackApp(app, environment, order.version, order.strategy)
    return _deployed(await requester.registry("rollback_app", wanted, deploying.AppDeployed))


@router.post("/apps/{app}/rollover", response_model=Deployed)
async def roll_over(
    request: Request,
    requester: Requester,
    app: AppRef,
    order: RolloverOrder | None = None,
    environment: Environment = "main",
) -> Deployed:
    """Replace all containers by new ones with the same code, as a new version."""
    await _check(request, requester, app, environment)
    wanted = deploying.RolloverApp(app, environment, (order or RolloverOrder()).strategy)
    return _deployed(await requester.registry("rollover_app", wanted, deploying.AppDeployed))


async def _check(request: Request, requester: Session, app: str, environment: str) -> None:
    if "if-match" in request.headers:
        check_unchanged(request, await _details(requester, app, environment))


async def _details(requester: Session, app: str, environment: str) -> AppDetails:
    by_id = app.startswith("ap-")
    wanted = apps.GetApp(app_id=app) if by_id else apps.GetApp(name=app, environment=environment)
    found = await requester.registry("get_app", wanted, apps.AppDetails)
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

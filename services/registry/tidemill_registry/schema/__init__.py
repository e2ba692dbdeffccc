"""The tables of the registry. What must never be is forbidden here, not only in the code above.

    workspaces -< environments -< apps -< functions -< pools -< pool_secrets >- secrets
                              \\      |-< routes  \\-< schedules
                               \\      \\-< deployments -< deployment_functions >- pools
                                \\-< secrets
    workspaces -< tokens, proxy_tokens, rate_limits
    image_recipes -< image_names; images: to what packages were resolved
    outbox: what is decided and not yet told to NATS
    calls -< inputs, input_counts: what happened; dead_letters: what was given up

Composite foreign keys carry the app along, so that a deployment cannot name another app's function, nor
a function another function's pool.
"""

from tidemill_registry.schema.access import PoolSecret, ProxyToken, RateLimit, SecretRow, Token
from tidemill_registry.schema.apps import (
    App,
    Deployment,
    DeploymentFunction,
    Environment,
    Function,
    PoolRow,
    RouteRow,
    ScheduleRow,
    Workspace,
)
from tidemill_registry.schema.base import Base
from tidemill_registry.schema.happened import Call, DeadLetterRow, Input, InputCount, RequestCountRow
from tidemill_registry.schema.images import ImageName, ImageRow, RecipeRow
from tidemill_registry.schema.outbox import Outbox

__all__ = [
    "App",
    "Base",
    "Call",
    "DeadLetterRow",
    "Deployment",
    "DeploymentFunction",
    "Environment",
    "Function",
    "ImageName",
    "ImageRow",
    "Input",
    "InputCount",
    "Outbox",
    "PoolRow",
    "PoolSecret",
    "ProxyToken",
    "RateLimit",
    "RecipeRow",
    "RequestCountRow",
    "RouteRow",
    "ScheduleRow",
    "SecretRow",
    "Token",
    "Workspace",
]

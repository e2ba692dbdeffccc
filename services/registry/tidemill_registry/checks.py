"""What may be asked of the registry. Each check raises `InvalidError` with one sentence."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from tidemill import schedule
from tidemill._parameters import KINDS
from tidemill._wire.deploying import MAX_TAG
from tidemill._wire.specs import Autoscaling, FunctionSpec, Resources, RetryPolicy, Web
from tidemill.exception import InvalidError
from tidemill_registry import layers
from tidemill_registry.decisions import LIFE

MAX_FUNCTIONS = 1_000
MAX_TIMEOUT = 86_400.0
MAX_CONTAINERS = 100_000
MAX_SECRETS = 100  # of one function
MAX_SCHEDULE = 4_096  # characters
MAX_PAGE = 1_000
MAX_WAIT = 600_000  # ms
MAX_PARAMETERS = 100  # of a class

MAX_CONCURRENCY = 1_000  # inputs of one container
WEB_KINDS = ("asgi", "wsgi", "endpoint", "server")

STRATEGIES = ("rolling", "recreate")

_OBJECT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FUNCTION_NAME = re.compile(r"[\w.*<>\[\]-]{1,256}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_GPU = re.compile(r"[A-Za-z0-9_-]{1,32}[!+]?")


def check_app(name: str | None, state: str, description: str, tags: Mapping[str, str]) -> None:
    """Refuse an app that cannot be."""
    if state not in LIFE["new"]:
        raise InvalidError(f"an app cannot be made {state!r}", hint=f"use one of: {', '.join(LIFE['new'])}")
    if state == "deployed" and name is None:
        raise InvalidError("a deployed app needs a name")
    if name is not None:
        check_name("an app", name)
    check_description(description)
    check_tags(tags)


def check_description(description: str) -> None:
    """Refuse a description that cannot be stored."""
    if len(description) > 4096:
        raise InvalidError("an app's description is longer than 4,096 characters")
    if "\0" in description:
        raise InvalidError("descriptions cannot contain NUL characters")


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that cannot be stored."""
    if len(tags) > 100 or any(len(key) > 64 or len(value) > 256 for key, value in tags.items()):
        raise InvalidError("an app has at most 100 tags, of 64 characters with values of 256")
    if any("\0" in text for tag in tags.items() for text in tag):
        raise InvalidError("tags cannot contain NUL characters")


def check_deployment(strategy: str, tag: str = "", client_version: str = "") -> None:
    """Refuse what cannot be said about a deployment."""
    if strategy not in STRATEGIES:
        raise InvalidError(f"not a strategy: {strategy[:50]!r}", hint=f"use one of: {', '.join(STRATEGIES)}")
    if len(tag) > MAX_TAG or "\0" in tag:
        raise InvalidError(f"the tag of a deployment has at most {MAX_TAG} characters, not {len(tag)}")
    if len(client_version) > 100 or "\0" in client_version:
        raise InvalidError("the version of the client has at most 100 characters")


def check_limit(limit: int) -> None:
    """Refuse a page of no size, or of too large a one."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidError(f"limit must be between 1 and {MAX_PAGE:,}")


def check_name(kind: str, name: str) -> None:
    """Refuse a name of an object that cannot stand in a URL."""
    if not _OBJECT_NAME.fullmatch(name):
        raise InvalidError(
            f"not a name for {kind}: {name!r}",
            hint="names are up to 64 letters, digits, '-', '_' and '.'",
        )


def check_functions(functions: Sequence[FunctionSpec]) -> None:
    """Refuse a set of functions if any one of them cannot be."""
    if len(functions) > MAX_FUNCTIONS:
        raise InvalidError(f"an app has at most {MAX_FUNCTIONS:,} functions, not {len(functions):,}")
    seen: set[str] = set()
    for spec in functions:
        if not _FUNCTION_NAME.fullmatch(spec.name):
            raise InvalidError(f"not a name for a function: {spec.name[:300]!r}")
        if spec.name in seen:
            raise InvalidError(f"two functions of the app are named {spec.name!r}")
        seen.add(spec.name)
        if problem := next(_problems(spec), None):
            raise InvalidError(f"function {spec.name!r}: {problem}")


def check_autoscaling(scaling: Autoscaling) -> None:
    """Refuse settings that cannot be."""
    if problem := next(_scaling_problems(scaling), None):
        raise InvalidError(problem)


def _problems(spec: FunctionSpec) -> Iterator[str]:
    """Yield what is wrong with a specification, most basic first."""
    if not spec.source.serialized and not (spec.source.module and spec.source.qualname):
        yield "it names neither a module's function nor a serialized one"
    if len(spec.all_secrets) > MAX_SECRETS:
        yield f"at most {MAX_SECRETS} secrets can be given"
    yield from layers.problems(spec.image)
    yield from _resource_problems(spec.resources)
    yield from _scaling_problems(spec.autoscaling)
    yield from _retry_problems(spec.retries)
    if not 0 < spec.timeout <= MAX_TIMEOUT:
        yield f"timeout must be above 0 and at most {MAX_TIMEOUT:,.0f} s"
    if spec.startup_timeout is not None and not 0 < spec.startup_timeout <= MAX_TIMEOUT:
        yield f"startup_timeout must be above 0 and at most {MAX_TIMEOUT:,.0f} s"
    yield from _web_problems(spec)
    yield from _class_problems(spec)
    if spec.schedule is not None:
        try:
            schedule.from_record(spec.schedule)
        except InvalidError as error:
            yield str(error)


def _class_problems(spec: FunctionSpec) -> Iterator[str]:
    cls, batching = spec.cls, spec.batching
    if batching is not None and not (
        1 <= batching.max_batch_size <= MAX_CONCURRENCY and 0 <= batching.wait_ms <= MAX_WAIT
    ):
        yield f"a batch has 1 to {MAX_CONCURRENCY:,} inputs and waits for up to {MAX_WAIT:,} ms"
    if cls is None:
        return
    names = [method.name for method in cls.methods]
    if len(names) > MAX_FUNCTIONS or len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
        yield f"a class has up to {MAX_FUNCTIONS:,} methods, each with a name of its own"
    if len(names) != 1 and batching is not None:
        yield "a class with a batched method has no other methods"
    if spec.web is not None:
        yield "a class answers the web by its methods"
    if len(cls.parameters) > MAX_PARAMETERS or any(each.kind not in KINDS for each in cls.parameters):
        yield f"a class has up to {MAX_PARAMETERS} parameters, each of them {', '.join(KINDS)}"


def _web_problems(spec: FunctionSpec) -> Iterator[str]:
    most, target = spec.concurrency.max_inputs, spec.concurrency.target_inputs
    if not 1 <= target <= most <= MAX_CONCURRENCY:
        yield f"at the same time a container runs 1 to {MAX_CONCURRENCY:,} inputs"
    for web in spec.webs.values():
        yield from _one_web_problems(web)


def _one_web_problems(web: Web) -> Iterator[str]:
    if web.kind not in WEB_KINDS:
        yield f"there is no web function of the kind {web.kind[:50]!r}"
    if web.label and not _LABEL.fullmatch(web.label):
        yield f"not a label: {web.label[:100]!r}"
    if web.kind == "server" and not 1 <= web.port < 1 << 16:
        yield f"not a port: {web.port}"
    if not 0 < web.startup_timeout <= MAX_TIMEOUT:
        yield f"a web server's startup_timeout must be above 0 and at most {MAX_TIMEOUT:,.0f} s"


def _resource_problems(resources: Resources) -> Iterator[str]:
    if not (0 < resources.cpu < math.inf):
        yield "cpu must be a number of cores above 0"
    if resources.cpu_limit is not None and not resources.cpu <= resources.cpu_limit < math.inf:
        yield "the limit of cpu is below its request"
    if resources.memory <= 0:
        yield "memory must be above 0 MiB"
    if resources.memory_limit is not None and resources.memory_limit < resources.memory:
        yield "the limit of memory is below its request"
    if resources.ephemeral_disk is not None and resources.ephemeral_disk <= 0:
        yield "ephemeral_disk must be above 0 MiB"
    if len(resources.gpus) > 10:
        yield "at most 10 kinds of GPU can be given as a preference"
    for kind, count in resources.gpus:
        if not _GPU.fullmatch(kind) or not 1 <= count <= 64:
            yield f"not a request for GPUs: {kind!r}, {count}"


def _scaling_problems(scaling: Autoscaling) -> Iterator[str]:
    if not 0 <= scaling.min_containers <= MAX_CONTAINERS:
        yield f"min_containers must be between 0 and {MAX_CONTAINERS:,}"
    if not 0 <= scaling.buffer_containers <= MAX_CONTAINERS:
        yield f"buffer_containers must be between 0 and {MAX_CONTAINERS:,}"
    if scaling.max_containers is not None and scaling.max_containers < max(1, scaling.min_containers):
        yield "max_containers must be at least 1 and at least min_containers"
    if not 0 <= scaling.scaledown_window <= MAX_TIMEOUT:
        yield f"scaledown_window must be between 0 and {MAX_TIMEOUT:,.0f} s"


def _retry_problems(retries: RetryPolicy) -> Iterator[str]:
    if not 0 <= retries.max_retries <= 1_000:
        yield "max_retries must be between 0 and 1,000"
    if not 0 <= retries.backoff_coefficient <= 1_000:
        yield "backoff_coefficient must be between 0 and 1,000"
    if not 0 <= retries.initial_delay <= MAX_TIMEOUT or not 0 <= retries.max_delay <= MAX_TIMEOUT:
        yield f"delays of retries must be between 0 and {MAX_TIMEOUT:,.0f} s"

"""What a worker tells a runner about itself: the one argument of the START frame."""

from typing import Any, NamedTuple

MAX_PAYLOAD = 2 << 20  # bytes of one bus message, as in the server settings that Tidemill makes


class Configuration(NamedTuple):
    """Everything that a runner must know before its first input.

    On the socket it is a map: `configuration._asdict()` there, `Configuration.read(...)` here, so that
    fields can be added. A handle is a map too (`dataclasses.asdict` of a `FunctionHandle`).

    container: the container's id (`co-...`).
    app_id, app_name, function, environment: what it runs, by the names that users gave.
    sources: folders that go to the front of `sys.path`, in this order.
    module, qualname: where the function is, unless `serialized` holds the function itself (format 2).
    is_generator: the function's results are streams of pieces.
    is_async: it is called on an event loop, even where that cannot be seen from the function.
    restrict_output: only plain values leave the container; nothing is pickled.
    env: variables set before the user's module is imported; secrets are among them.
    workdir: the working directory; made if it is not there. Empty leaves it as it is.
    handles: the functions of the same app, by name.
    slots: inputs that may run at the same time.
    interactive: the function may ask for the caller's terminal.
    max_payload: bytes of one message on the bus.
    workspace: whose container it is.
    parameters: those of the container's object, if it runs a class.
    own: what the container's own pool is called through, if it runs a class.
    web: the fields of the `Web` of what answers the web, by the method; a function's name is empty.
    surroundings: variables that tell the container which one it is; set in a copy of a snapshot, too.
    began: unix times: when the container was ordered, when its worker took that, when its image was there.
    """

    container: str
    app_id: str = ""
    app_name: str = ""
    function: str = ""
    environment: str = "main"
    sources: tuple[str, ...] = ()
    module: str = ""
    qualname: str = ""
    serialized: bytes | None = None
    is_generator: bool = False
    is_async: bool = False
    restrict_output: bool = False
    env: dict[str, str] = {}  # noqa: RUF012 - read only
    workdir: str = ""
    handles: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - read only
    slots: int = 1
    interactive: bool = False
    max_payload: int = MAX_PAYLOAD
    workspace: str = ""
    parameters: dict[str, Any] | None = None
    own: dict[str, Any] | None = None
    web: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - read only
    began: tuple[float, ...] = ()
    surroundings: dict[str, str] = {}  # noqa: RUF012 - read only

    @classmethod
    def read(cls, fields: dict[str, Any]) -> "Configuration":
        """Return the configuration that arrived; fields of a newer worker are left out."""
        return cls(**{name: value for name, value in fields.items() if name in cls._fields})

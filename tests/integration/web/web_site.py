"""Where a stack's web functions are found."""

from running_stacks import RunningStack

APP = "web-program"


class Site:
    """The gateway of a stack, and the functions of the app behind it."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.gateway = stack.info.gateway_url

    def path(self, function: str) -> str:
        """Return the path of a function."""
        return f"/f/local--{APP}-{function}"

    def url(self, function: str, rest: str = "/") -> str:
        """Return an address of a function, by path."""
        return f"{self.gateway}{self.path(function)}{rest}"

    def socket(self, function: str, rest: str) -> str:
        """Return the address of a WebSocket."""
        return self.url(function, rest).replace("http://", "ws://", 1)

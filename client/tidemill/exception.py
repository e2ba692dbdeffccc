"""The errors of Tidemill, under the names that Modal gives them.

    Error
    ├── AuthError, PermissionDeniedError          who are you, may you
    ├── NotFoundError, AlreadyExistsError         which object
    ├── InvalidError                              what you asked for cannot be
    │   └── ConflictError                         ... in the present state
    ├── VersionError                              client and server do not match
    ├── ExecutionError                            used in the wrong way
    │   └── DeserializationError                  ... or what arrived cannot be read here
    ├── RemoteError                               the function failed with what cannot be raised here
    ├── InternalFailure                           the platform lost the input too often
    ├── ResourceExhaustedError                    full for now: try again later
    ├── ServiceError, InternalError, UnimplementedError, DataLossError
    ├── ConnectionError, ClientClosed             no server, or no longer
    ├── SerializationError, RequestSizeError      what was to be sent cannot be
    ├── ImageBuildError, ModuleNotMountable, LogsFetchError
    └── TimeoutError
        ├── FunctionTimeoutError, SandboxTimeoutError, ExecTimeoutError
        └── OutputExpiredError, InteractiveTimeoutError, ...

`InputCancellation` is a `BaseException`: it is raised inside user code that is being cancelled.
"""


class Error(Exception):
    """Base of every error that Tidemill raises itself. A hint, the next step, is a note of its traceback."""

    hint: str = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class AuthError(Error):
    """The credentials are missing or wrong."""


class PermissionDeniedError(Error):
    """The credentials do not allow this."""


class NotFoundError(Error):
    """The named object does not exist."""


class AlreadyExistsError(Error):
    """An object of this name exists."""


class InvalidError(Error):
    """The request cannot be carried out as it is written."""


class ConflictError(InvalidError):
    """The request does not fit the present state of the object."""


class VersionError(Error):
    """Client and server, or caller and container, do not fit together."""


class ExecutionError(Error):
    """Something was used in a way that cannot work, or a result cannot be read here."""


class RemoteError(Error):
    """The function failed, and its exception cannot be raised here as it was."""


class InternalFailure(Error):
    """The platform lost the input more often than it tries again."""


class ResourceExhaustedError(Error):
    """A queue or a limit is full; the same call may go through later."""


class ServiceError(Error):
    """A service did not answer, or not in time."""


class InternalError(Error):
    """A service failed for a reason of its own."""


class UnimplementedError(Error):
    """This server cannot do it."""


class DataLossError(Error):
    """Stored data is missing or damaged."""


class ConnectionError(Error):
    """No server can be reached."""


class ClientClosed(Error):
    """The client was closed."""


class SerializationError(Error):
    """A value cannot be sent."""


class DeserializationError(ExecutionError):
    """Arguments or a result cannot be read here, for instance for want of a package."""


class RequestSizeError(Error):
    """A payload is above the cap."""


class ImageBuildError(Error):
    """An image could not be built."""

    def __init__(self, message: str = "", *, image_id: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.image_id = image_id


class ModuleNotMountable(Error):
    """A local module cannot be sent to containers."""


class LogsFetchError(Error):
    """Logs cannot be read."""


class TimeoutError(Error):
    """Base of everything that took too long. Not the builtin: `FunctionCall.get` raises that one."""


class FunctionTimeoutError(TimeoutError):
    """An input ran for longer than its function's `timeout`."""


class SandboxTimeoutError(TimeoutError):
    """A sandbox lived for longer than its `timeout`."""


class SandboxTerminatedError(Error):
    """A sandbox was terminated."""


class ExecTimeoutError(TimeoutError):
    """A process in a sandbox ran for longer than its `timeout`."""


class MountUploadTimeoutError(TimeoutError):
    """Source code could not be uploaded in time."""


class VolumeUploadTimeoutError(TimeoutError):
    """Files could not be uploaded into a volume in time."""


class InteractiveTimeoutError(TimeoutError):
    """An interactive session could not be opened in time."""


class OutputExpiredError(TimeoutError):
    """The result was kept for its time and is gone."""


class InputCancellation(BaseException):
    """Raised inside user code whose input is being cancelled."""


class DeprecationError(UserWarning):
    """Something that is going away."""


class ServerWarning(UserWarning):
    """Something that the server wants the user to know."""


class AsyncUsageWarning(UserWarning):
    """A blocking call inside an event loop."""


class InternalAPIWarning(UserWarning):
    """Use of something that is not public."""

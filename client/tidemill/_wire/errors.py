"""Wire code <-> exception class: one table, read in both directions."""

from tidemill import exception
from tidemill._wire.control import ErrorReply

CLASSES: dict[str, type[exception.Error]] = {
    "auth": exception.AuthError,
    "permission_denied": exception.PermissionDeniedError,
    "not_found": exception.NotFoundError,
    "already_exists": exception.AlreadyExistsError,
    "invalid": exception.InvalidError,
    "conflict": exception.ConflictError,
    "version": exception.VersionError,
    "resource_exhausted": exception.ResourceExhaustedError,
    "service": exception.ServiceError,
    "internal": exception.InternalError,
    "unimplemented": exception.UnimplementedError,
    "data_loss": exception.DataLossError,
    "image_build": exception.ImageBuildError,
    "timeout": exception.TimeoutError,
}
_CODES = {kind: code for code, kind in CLASSES.items()}


def to_exception(reply: ErrorReply) -> exception.Error:
    """Return the exception that an error reply stands for."""
    return CLASSES.get(reply.code, exception.InternalError)(reply.message, hint=reply.hint)


def to_reply(error: exception.Error) -> ErrorReply:
    """Return an exception as an error reply."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), "internal")
    return ErrorReply(code, str(error), error.hint)

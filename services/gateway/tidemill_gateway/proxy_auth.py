"""Web functions that open only to who shows a proxy token: decided from a read model, without a question."""

import hashlib
import hmac
from collections.abc import Iterable

from tidemill._wire import coding
from tidemill._wire.proxy_tokens import ProxyTokenRecord
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_gateway.problems import Problem

NAMES = ((b"tidemill-key", b"tidemill-secret"), (b"modal-key", b"modal-secret"))  # the first pair counts
SECRETS = frozenset(name for pair in NAMES for name in pair)  # headers that no function is to see
HINT = "send a proxy token of the workspace: the headers Tidemill-Key and Tidemill-Secret"

Headers = Iterable[tuple[bytes, bytes]]

_NOBODY = ProxyTokenRecord("", bytes(32))


def shown(headers: Headers) -> tuple[str, bytes] | None:
    """Return the id and the secret of the token that a request's headers show, if they do."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in SECRETS:
            found.setdefault(name, value)
    for key, secret in NAMES:
        if key in found and secret in found:
            return found[key].decode("latin-1"), found[secret]
    return None


def opens(record: ProxyTokenRecord, secret: bytes, workspace: str) -> bool:
    """Return whether a secret is that of a token of a workspace. Takes as long whether it is or not."""
    is_right = hmac.compare_digest(record.secret_sha256, hashlib.sha256(secret).digest())
    return is_right & (record.workspace == workspace)


def without_secrets(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return headers without those that show a proxy token."""
    return [(name, value) for name, value in headers if name not in SECRETS]


class ProxyTokens:
    """The proxy tokens that are good, as the registry tells them."""

    def __init__(self, bus: ServiceBus, log: Logger) -> None:
        self._bus = bus
        self._log = log
        self._records: dict[str, ProxyTokenRecord] = {}
        self._filled = False

    def check(self, workspace: str, headers: Headers) -> str:
        """Return the id of the token that a request shows. Raises `Problem`: 401, or 503 at the start."""
        pair = shown(headers)
        if pair is None:
            raise _refused("this address needs a proxy token")
        if not self._filled:
            raise Problem(503, "service", "the proxy tokens are not known yet", headers={"Retry-After": "1"})
        token_id, secret = pair
        if not opens(self._records.get(token_id, _NOBODY), secret, workspace):
            raise _refused("the proxy token is wrong or revoked")
        return token_id

    async def run(self) -> None:
        """Follow the tokens until cancelled."""
        async for token_id, value in self._bus.bucket(streams.PROXY_TOKENS).watch():
            if not token_id:
                self._filled = True
            elif value is None:
                self._records.pop(token_id, None)
            else:
                self._keep(token_id, value)

    def _keep(self, token_id: str, value: bytes) -> None:
        try:
            self._records[token_id] = coding.decode(ProxyTokenRecord, value)
        except ValueError as error:
            self._records.pop(token_id, None)
            self._log.error("a proxy token's record cannot be read", token=token_id, error=str(error))


def _refused(detail: str) -> Problem:
    return Problem(
        401, "auth", detail, hint=HINT, headers={"WWW-Authenticate": 'Tidemill-Key realm="tidemill"'}
    )

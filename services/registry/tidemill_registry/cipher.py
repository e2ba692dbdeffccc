"""How secrets are encrypted: AES-256-GCM with keys that are nowhere in the database.

The first key of the ring encrypts; every key decrypts what it once encrypted. A ciphertext names its key
by an id that tells nothing about it, and can be read only as the content of the row it was made for.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidemill.exception import DataLossError, ServiceError

KEY_BYTES = 32
_NONCE_BYTES = 12
_NO_KEY_HINT = "set TIDEMILL_SECRETS_KEY or TIDEMILL_SECRETS_KEY_FILE for every replica of the registry"


class Encrypted(NamedTuple):
    """Some values as they are stored."""

    key_id: str
    ciphertext: bytes


class Keyring:
    """The keys of a registry, the one that encrypts first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_id_of(key): key for key in keys}
        self._first = next(iter(self._keys), "")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, first the one that encrypts."""
        return tuple(self._keys)

    @property
    def first(self) -> str:
        """The id of the key that encrypts. `ServiceError` if there is none."""
        if not self._first:
            raise ServiceError("the registry has no key for secrets", hint=_NO_KEY_HINT)
        return self._first

    def encrypt(self, secret_id: str, values: Mapping[str, str]) -> Encrypted:
        """Return values as the row of this secret stores them. `ServiceError` without a key."""
        nonce = os.urandom(_NONCE_BYTES)
        box = AESGCM(self._keys[self.first])
        data = box.encrypt(nonce, msgspec.msgpack.encode(values), _bound_to(secret_id))
        return Encrypted(self.first, nonce + data)

    def decrypt(self, secret_id: str, stored: Encrypted) -> dict[str, str]:
        """Return the values that were encrypted.

        Raises:
            ServiceError: their key is not in this ring.
            DataLossError: they are not what was stored for this secret.
        """
        key = self._keys.get(stored.key_id)
        if key is None:
            raise ServiceError(
                f"the secret {secret_id} is encrypted with the key {stored.key_id}, "
                f"which this registry does not have",
                hint="give it back to TIDEMILL_SECRETS_KEY, behind the present one; nothing is lost",
            )
        nonce, data = stored.ciphertext[:_NONCE_BYTES], stored.ciphertext[_NONCE_BYTES:]
        try:
            packed = AESGCM(key).decrypt(nonce, data, _bound_to(secret_id))
        except (InvalidTag, ValueError) as error:
            raise DataLossError(f"what is stored of the secret {secret_id} was changed") from error
        return msgspec.msgpack.decode(packed, type=dict[str, str])

    def fingerprint(self, environment_id: str, values: Mapping[str, str]) -> bytes:
        """Return what is equal for equal values of one environment, and tells nothing without the key."""
        key = hmac.digest(self._keys[self.first], b"tidemill: fingerprints of secrets", "sha256")
        return hmac.digest(key, msgspec.msgpack.encode((environment_id, sorted(values.items()))), "sha256")


def new_key() -> str:
    """Return a new key as settings carry it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def read_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys in a setting or a file: base64, parted by white space or commas.

    Raises:
        ValueError: one of them is no key. The message does not repeat it.
    """
    keys = []
    for number, word in enumerate(text.replace(",", " ").split(), 1):
        try:
            key = base64.b64decode(word, validate=True)
        except binascii.Error as error:
            raise ValueError(f"key {number} is not base64") from error
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {number} has {len(key)} bytes, not {KEY_BYTES}")
        keys.append(key)
    return tuple(keys)


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"tidemill: id of a key for secrets" + key).hexdigest()[:16]


def _bound_to(secret_id: str) -> bytes:
    return f"tidemill secret {secret_id}".encode()

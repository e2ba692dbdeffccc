"""The JSON Web Tokens of NATS: claims signed with an nkey, as auth callout exchanges them."""

import base64
import hashlib
import json
from typing import Any

import nkeys

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class Issuer:
    """A key that signs claims, made from its seed (`SA...`: an account's)."""

    def __init__(self, seed: str) -> None:
        self._key = nkeys.from_seed(bytearray(seed, "ascii"))
        self.public: str = self._key.public_key.decode()

    def sign(self, claims: dict[str, Any]) -> str:
        """Return claims as a token of this issuer."""
        claims = {**claims, "iss": self.public}
        claims["jti"] = base64.b32encode(hashlib.sha256(_packed(claims)).digest()).decode().rstrip("=")
        signed = f"{_written(_HEADER)}.{_written(claims)}"
        return f"{signed}.{_encoded(self._key.sign(signed.encode()))}"


def new_seed() -> str:
    """Return the seed of a new issuer."""
    import secrets

    return bytes(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_ACCOUNT)).decode()


def read(token: str) -> dict[str, Any]:
    """Return the claims of a token, if whoever it says has issued it; `ValueError`."""
    try:
        header, body, signature = token.split(".")
        if json.loads(_decoded(header)).get("alg") != _HEADER["alg"]:
            raise ValueError("not signed with an nkey")
        claims: dict[str, Any] = json.loads(_decoded(body))
        _verify(str(claims["iss"]), f"{header}.{body}".encode(), _decoded(signature))
    except (KeyError, AttributeError, TypeError, nkeys.NkeysError) as error:
        raise ValueError(f"not a token of NATS: {error}") from error
    return claims


def _verify(issuer: str, signed: bytes, signature: bytes) -> None:
    from nacl.exceptions import CryptoError
    from nacl.signing import VerifyKey

    try:
        raw = base64.b32decode(issuer + "=" * (-len(issuer) % 8))
        VerifyKey(raw[1:-2]).verify(signed, signature)  # between the kind of key and a checksum
    except (CryptoError, TypeError) as error:
        raise ValueError("the signature is not the issuer's") from error


def _packed(claims: dict[str, Any]) -> bytes:
    return json.dumps(claims, separators=(",", ":")).encode()


def _written(claims: dict[str, Any]) -> str:
    return _encoded(_packed(claims))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

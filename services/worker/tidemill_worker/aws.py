"""Amazon's registry: from keys of AWS to a password, asked of AWS itself, signed as it wants it (SigV4)."""

import asyncio
import datetime
import hashlib
import hmac
import json
import os
import re
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Mapping
from urllib.parse import urlsplit

from tidemill import exception

TIMEOUT = 30.0  # seconds
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_ENDPOINT = "AWS_ENDPOINT_URL_ECR"  # of this worker, as AWS's own programs know it
_REGISTRY = re.compile(r"\d+\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z0-9]+){1,4}")
_ACTION = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"


async def login(host: str, secret: Mapping[str, str]) -> str:
    """Return user and password (`user:password`) for a registry, by keys of AWS.

    Raises:
        ImageBuildError: the region is not known, or AWS does not give one.
    """
    in_name = _REGISTRY.fullmatch(host)
    region = in_name[1] if in_name else secret.get("AWS_REGION", secret.get("AWS_DEFAULT_REGION", ""))
    if not _REGION.fullmatch(region):
        raise exception.ImageBuildError(
            f"the region of the registry {host} is not known",
            hint="put AWS_REGION into the registry's secret",
        )
    return await asyncio.to_thread(_ask, region, secret)


def _ask(region: str, secret: Mapping[str, str]) -> str:
    url = os.environ.get(_ENDPOINT) or f"https://api.ecr.{region}.amazonaws.com/"
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urlsplit(url).netloc,
        "x-amz-target": _ACTION,
        **({"x-amz-security-token": secret["AWS_SESSION_TOKEN"]} if "AWS_SESSION_TOKEN" in secret else {}),
    }
    key, private = (secret[name] for name in KEYS)
    now = datetime.datetime.now(datetime.UTC)
    signed = sign("POST", headers, b"{}", key, private, region=region, service="ecr", now=now)
    request = urllib.request.Request(url, b"{}", signed, method="POST")  # noqa: S310 - AWS, or the operator's
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            told = json.load(answer)["authorizationData"][0]["authorizationToken"]
    except urllib.error.HTTPError as error:
        reason = error.read(500).decode(errors="replace")
        raise exception.ImageBuildError(f"AWS gives no password for its registry: {reason}") from None
    except (OSError, ValueError, LookupError) as error:
        raise exception.ImageBuildError(
            f"AWS cannot be asked for a password of its registry: {error}"
        ) from None
    return b64decode(told).decode()


def sign(
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    key: str,
    private: str,
    *,
    region: str,
    service: str,
    now: datetime.datetime,
) -> dict[str, str]:
    """Return the headers of a request to `/` with those that sign it; their names are in lower case."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    told = dict(sorted({**headers, "x-amz-date": stamp}.items()))
    names = ";".join(told)
    lines = "".join(f"{name}:{value.strip()}\n" for name, value in told.items())
    asked = "\n".join([method, "/", "", lines, names, hashlib.sha256(body).hexdigest()])
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(asked.encode()).hexdigest()])
    digest = f"AWS4{private}".encode()
    for part in scope.split("/"):
        digest = _mac(digest, part)
    signature = _mac(digest, text).hex()
    credential = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**told, "authorization": credential}


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()

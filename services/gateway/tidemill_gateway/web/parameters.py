"""The parameters of a class in the query of a URL: `?size=large&n=3`.

What else stands there is the app's business. Nothing is taken out of the query, so that an address which an
app makes of its own leads to the same object.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from tidemill import _parameters
from tidemill._wire.specs import Parameter
from tidemill.exception import InvalidError
from tidemill_gateway.problems import Problem

_INT = re.compile(r"[+-]?[0-9]{1,20}")
_BOOLS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def of_query(owner: str, parameters: Sequence[Parameter], query: bytes) -> dict[str, Any]:
    """Return the parameters that a query names and that differ from the defaults.

    Raises:
        Problem: one is missing, is there twice, or cannot be what it is.
    """
    kinds = {each.name: each.kind for each in parameters}
    given: dict[str, Any] = {}
    for piece in query.split(b"&"):
        key, _, raw = piece.partition(b"=")
        name = _plain(key).decode("utf-8", "replace")
        if name not in kinds:
            continue
        if name in given:
            raise _refused(name, "is there twice")
        given[name] = _value(name, kinds[name], _plain(raw))
    try:
        return _parameters.values(owner, parameters, given)
    except (InvalidError, TypeError) as error:
        raise Problem(422, "invalid_parameter", str(error), hint="give it in the query of the URL") from None


def _plain(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))


def _value(name: str, kind: str, raw: bytes) -> Any:
    try:
        return raw if kind == "bytes" else _READ[kind](raw.decode())
    except (ValueError, KeyError):
        raise _refused(
            name, f"has to be {_SHOWN[kind]}, not {raw[:50].decode('utf-8', 'replace')!r}"
        ) from None


def _int(text: str) -> int:
    if not _INT.fullmatch(text):
        raise ValueError
    return int(text)


_READ: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "int": _int,
    "bool": lambda text: _BOOLS[text.lower()],
}
_SHOWN = {"str": "text in UTF-8", "int": "a whole number", "bool": "true or false"}


def _refused(name: str, why: str) -> Problem:
    return Problem(422, "invalid_parameter", f"the parameter {name!r} {why}")

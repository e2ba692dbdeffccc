"""Functions that run while an image is built: `Image.run_function`."""

import hashlib
import inspect
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

from tidemill._source import Packer

_PLAIN = (str, bytes, int, float, complex, bool, tuple, frozenset, type(None))


def pack(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    include_source: bool,
) -> tuple[str, bytes, dict[str, bytes]]:
    """Return a function's key, its order for the worker, and the blobs that the order names."""
    from tidemill._wire import payload

    packed = Packer().pack(
        function, function.__name__, serialized=False, include_source=include_source, modules=()
    )
    kind, data = payload.encode_call(args, dict(kwargs))
    source = packed.source
    order = {
        "bundles": list(source.bundles),
        "module": source.module,
        "qualname": source.qualname,
        "serialized": source.serialized,
        "format": int(kind),
        "arguments": b64encode(data).decode(),
    }
    key = hashlib.sha256(_said(function).encode() + data).hexdigest()
    return key, json.dumps(order, sort_keys=True).encode(), packed.blobs


def _said(function: Callable[..., Any]) -> str:
    """Return what makes a function another one: its text, and the plain values that it uses."""
    code = getattr(function, "__code__", None)
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = repr(code.co_code + repr(code.co_consts).encode()) if code else repr(function)
    names = sorted(_names(code)) if code else []
    values = getattr(function, "__globals__", {})
    used = {name: repr(values[name]) for name in names if isinstance(values.get(name, ...), _PLAIN)}
    return json.dumps([text, used, repr(getattr(function, "__defaults__", None))])


def _names(code: CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*map(_names, inner))

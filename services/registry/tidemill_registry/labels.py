"""What the URLs of web functions begin with: a label of DNS, unique among all workspaces.

    <workspace>[-<suffix of the environment>]--<app>-<function>[-dev]
    <workspace>[-<suffix of the environment>]--<app>-<class>-<method>[-dev]
    <workspace>[-<suffix of the environment>]--<label>[-dev]            with `label=`

What runs only for a while ends in `-dev`. A label that would be too long is cut and gets a hash of it all.
"""

import hashlib
import re

from tidemill._wire.specs import FunctionSpec

MAX_LABEL = 63  # characters, as DNS has it
_HASH = 6  # characters
_DEV = "-dev"

_OTHERS = re.compile(r"[^a-z0-9]+")


def labels(workspace: str, suffix: str, app: str, spec: FunctionSpec, *, lasting: bool) -> dict[str, str]:
    """Return the labels of what answers the web of a function or class, by the method (see `webs`)."""
    owner = f"{workspace}-{suffix}" if suffix else workspace
    made = {}
    for method, web in spec.webs.items():
        named = web.label or "-".join(filter(None, map(_plain, (app, spec.name, method))))
        made[method] = _fitting(f"{owner}--{named}", "" if lasting else _DEV)
    return made


def _plain(name: str) -> str:
    return _OTHERS.sub("-", name.lower()).strip("-")


def _fitting(text: str, ending: str) -> str:
    room = MAX_LABEL - len(ending)
    if len(text) > room:
        digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
        text = f"{text[: room - _HASH - 1].rstrip('-')}-{digest}"
    return text + ending

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


def label(workspace: str, suffix: str, app: str, spec: FunctionSpec, *, lasting: bool) -> str:
    """Return the label of a function, empty for one that is not for the web."""
    if spec.web is None:
        return ""
    names = (app, spec.name, *(method.name for method in spec.cls.methods)) if spec.cls else (app, spec.name)
    named = spec.web.label or "-".join(filter(None, map(_plain, names)))
    owner = f"{workspace}-{suffix}" if suffix else workspace
    return _fitting(f"{owner}--{named}", "" if lasting else _DEV)


def _plain(name: str) -> str:
    return _OTHERS.sub("-", name.lower()).strip("-")


def _fitting(text: str, ending: str) -> str:
    room = MAX_LABEL - len(ending)
    if len(text) > room:
        digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
        text = f"{text[: room - _HASH - 1].rstrip('-')}-{digest}"
    return text + ending

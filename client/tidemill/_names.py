"""What names, keys and tags may be."""

import re
from collections.abc import Mapping
from typing import Any

from tidemill.exception import InvalidError

_OBJECT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_DEPLOYMENT_TAG = re.compile(r"[A-Za-z0-9_.-]{1,50}")
_VARIABLE = re.compile(r"[^=\0]+")

MAX_TAGS = 10


def check_object(kind: str, name: Any) -> str:
    """Return the name of an object if it can be one, else raise `InvalidError`."""
    if not isinstance(name, str) or not _OBJECT.fullmatch(name):
        raise InvalidError(
            f"not a name for {kind}: {name!r}",
            hint="names are up to 64 letters, digits, '-', '_' and '.'",
        )
    return name


def check_tags(tags: Any) -> dict[str, str]:
    """Return tags if they can be ones, else raise `InvalidError`."""
    if not isinstance(tags, Mapping):
        raise InvalidError(f"tags have to be a dictionary of strings, not {tags!r}")
    if len(tags) > MAX_TAGS:
        raise InvalidError(f"an app has at most {MAX_TAGS} tags, not {len(tags)}")
    for text in (text for tag in tags.items() for text in tag):
        if not isinstance(text, str) or not _TAG.fullmatch(text):
            raise InvalidError(
                f"not a tag: {text!r}",
                hint="keys and values are up to 63 letters, digits, '-', '_' and '.'",
            )
    return dict(tags)


def check_deployment_tag(tag: Any) -> str:
    """Return the tag of a deployment if it can be one, else raise `InvalidError`."""
    if not isinstance(tag, str) or not _DEPLOYMENT_TAG.fullmatch(tag):
        raise InvalidError(
            f"not a tag for a deployment: {tag!r}",
            hint="it is up to 50 letters, digits, '-', '_' and '.'",
        )
    return tag


def check_variables(what: str, variables: Any) -> dict[str, str]:
    """Return environment variables without those that are None, or raise `InvalidError`."""
    if not isinstance(variables, Mapping):
        raise InvalidError(f"{what} has to be a dictionary of strings, not {variables!r}")
    kept: dict[str, str] = {}
    for name, value in variables.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise InvalidError(f"{what}: not a name of an environment variable: {name!r}")
        if value is None:
            continue
        if not isinstance(value, str) or "\0" in value:
            raise InvalidError(
                f"{what}: the value of {name} has to be a string, not {value!r}",
                hint="None leaves a variable out",
            )
        kept[name] = value
    return kept

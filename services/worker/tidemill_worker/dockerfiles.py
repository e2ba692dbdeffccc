"""Dockerfiles: scripts that have `buildah` build them. Pure: text in, text out."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from tidemill import exception
from tidemill_worker import recipes
from tidemill_worker.build_steps import (
    INSIDE,
    LENT,
    LISTEN,
    MOUNTS,
    OWN,
    REPOSITORY,
    SHELL,
    Step,
    begin,
    image,
    is_near,
    keep,
    write,
)

NEVER = "--pull-never"
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.MULTILINE | re.IGNORECASE)
_SHELL = re.compile(r"\s*SHELL\s+(\[.*\])\s*", re.IGNORECASE | re.DOTALL)
_DOCUMENT = re.compile(r"""(?:^|\s)\d*<<-?(["']?)(\w+)\1(?=\s|$)""")  # `<<EOF` in what follows RUN
_TAKES_DOCUMENTS = re.compile(r"\s*(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s", re.IGNORECASE)
_ALOUD = f"{INSIDE}/aloud"

# What RUN's shell is run by: buildah may lose what a command says right before it ends, this pipe does not.
_SAY_ALOUD = f'#!/bin/sh\nexec > {INSIDE}/said 2>&1\nexec "$@"\n'


def lines(
    step: Step, key: str, commands: Sequence[str], *, workspace: str, secrets: Mapping[str, str]
) -> str:
    """Return the script that builds lines of a Dockerfile on top of the layer before."""
    return on_top_of(image(step.before), step, key, commands, workspace=workspace, secrets=secrets)


def on_top_of(
    base: str, step: Step, key: str, commands: Sequence[str], *, workspace: str, secrets: Mapping[str, str]
) -> str:
    """Return the script that builds lines of a Dockerfile on top of an image that is here."""
    said = [f"FROM {base}"]
    said += [f"ENV {name}={_quoted(value)}" for name, value in step.written.env.items()]
    if step.written.workdir:
        said.append(f"WORKDIR {step.written.workdir}")
    if step.written.shell != SHELL:
        said.append(f"SHELL {json.dumps(step.written.shell)}")
    text = "\n".join([*said, *commands]) + "\n"
    return build(step, key, text, workspace=workspace, secrets=secrets, pull=NEVER)


def build(
    step: Step,
    key: str,
    text: str,
    *,
    workspace: str,
    secrets: Mapping[str, str],
    auth: bool = False,
    pull: str = "--pull-always",
) -> str:
    """Return the script that builds a Dockerfile. What it copies is lent as `context`."""
    if REPOSITORY in text.partition("\n")[2] or (pull != NEVER and REPOSITORY in text):
        raise exception.ImageBuildError(f"a Dockerfile cannot name {REPOSITORY}: these are others' layers")
    options = [
        f"--build-arg {shlex.quote(f'{name}={value}')}"
        for name, value in step.arguments.get("build_args", {}).items()
    ]
    options += [f"--secret id={shlex.quote(name)},src={OWN}/secrets/{shlex.quote(name)}" for name in secrets]
    options += ["--layers=false --force-rm --format docker"]  # the format that knows SHELL
    options += [f"-v {OWN}/aloud:{_ALOUD}:ro", f"-v {OWN}/said:{INSIDE}/said:rw", pull]
    if auth:
        options.append(f"--authfile {OWN}/auth.json")
    if all(map(is_near, bases(text))):
        options.append("--tls-verify=false")
    built = f"{key}-built"
    kept = f"{MOUNTS}/{recipes.digest(workspace)}"
    return "\n".join(
        [
            write(f"{OWN}/Dockerfile", aloud(text)),
            write(f"{OWN}/aloud", _SAY_ALOUD),
            f"chmod 755 {OWN} {OWN}/aloud",
            *(write(f"{OWN}/secrets/{shlex.quote(name)}", value) for name, value in secrets.items()),
            LISTEN,
            f"mkdir -p {kept}\nexport TMPDIR={kept}",  # where cache mounts are kept
            f"heard buildah build {' '.join(options)} -f {OWN}/Dockerfile -t {image(built)} {LENT}/context",
            begin(image(built)),
            keep(key),
            f"buildah rm $c > /dev/null\nbuildah rmi {image(built)} > /dev/null",
        ]
    )


def bases(dockerfile: str) -> list[str]:
    """Return what a Dockerfile's stages begin with."""
    return _FROM.findall(dockerfile)


def aloud(text: str) -> str:
    """Return a Dockerfile whose commands are heard to the last word."""
    found: list[str] = []
    last = list(SHELL)
    for instruction in _instructions(text):
        if told := _SHELL.fullmatch(instruction):
            last = _words(told[1]) or last
        else:
            found.append(instruction)
        if is_base := _FROM.match(instruction):
            last = list(SHELL)
        if told or is_base:
            found.append(f"SHELL {json.dumps([_ALOUD, *last])}")
    return "\n".join([*found, f"SHELL {json.dumps(last)}", ""])


def _instructions(text: str) -> Iterator[str]:
    """Yield instructions, each with the lines that go on with it, and its here-documents.

    Comments stand alone or inside of one.
    """
    pending: list[str] = []
    documents: list[str] = []  # that are open, by the lines that end them
    for line in text.splitlines():
        pending.append(line)
        if documents:
            if line.lstrip("\t") == documents[0]:
                del documents[0]
        elif _goes_on(line, is_first=len(pending) == 1):
            continue
        else:
            documents = _documents("\n".join(pending))
        if not documents:
            yield "\n".join(pending)
            pending = []
    if pending:
        yield "\n".join(pending)


def _goes_on(line: str, *, is_first: bool) -> bool:
    """Return whether an instruction does not end with a line of it."""
    is_comment = line.lstrip().startswith("#")
    return (not is_first and (is_comment or not line.strip())) or (
        not is_comment and line.rstrip().endswith("\\")
    )


def _documents(instruction: str) -> list[str]:
    """Return the lines that end the here-documents which follow an instruction."""
    found = _DOCUMENT.findall(instruction) if _TAKES_DOCUMENTS.match(instruction) else []
    return [name for _quote, name in found]


def _words(array: str) -> list[str]:
    try:
        words = json.loads(array.replace("\\\n", ""))
    except ValueError:  # buildah tells what is wrong with it
        return []
    return [str(word) for word in words]


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'

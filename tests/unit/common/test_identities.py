"""Rights as values: no right is wider than it looks, and the documentation shows them as they are."""

import re
from pathlib import Path

import pytest

from tidemill_common import identities, streams
from tidemill_common.identities import Rights

PAGE = Path(__file__).parents[3] / "docs" / "identity.md"
WORKSPACE = "WORKSPACE"  # stands for any in the table

MEMBER = identities.member("ws", "ak-ws-1")


def matches(pattern: str, subject: str) -> bool:
    """Return whether a pattern of NATS matches a subject or covers another pattern."""
    parts, wanted = pattern.split("."), subject.split(".")
    for number, part in enumerate(parts):
        if part == ">":
            return len(wanted) > number
        if number >= len(wanted) or (part != "*" and part != wanted[number]):
            return False
    return len(parts) == len(wanted)


def shown() -> str:
    """Return the table of the documentation."""
    identified = {
        "member": identities.member("ws", "TOKEN"),
        "worker": identities.worker("worker", "TOKEN"),
        "gpu-worker": identities.worker("gpu-worker", "TOKEN"),
        **{name: identities.service(name) for name in identities.SERVICE_USERS},
    }
    rows = ["| identity | may publish | may not publish | may subscribe |", "|---|---|---|---|"]
    for name, rights in identified.items():
        lists = (rights.publish, rights.publish_denied, rights.subscribe)
        answers = ("answers to whoever asks it",) if rights.responds else ()
        cells = [_cell(rights.publish, answers), *(_cell(each) for each in lists[1:])]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(subjects: tuple[str, ...], more: tuple[str, ...] = ()) -> str:
    named = dict.fromkeys(_named(subject) for subject in subjects)
    return " ".join([*(f"`{subject}`" for subject in named), *more]) or "-"


def _named(subject: str) -> str:
    subject = re.sub(r"(?<=[._])ws(?=[.]|$)", f"<{WORKSPACE.lower()}>", subject)
    subject = re.sub(r"(INPUTS_(?:cpu|gpu))_\d+", r"\1_<n>", subject)
    return re.sub(r"(tm\.inputs\.(?:cpu|gpu))\.\d+", r"\1.<n>", subject).replace("TOKEN", "<token>")


def test_the_documentation_shows_what_each_identity_may_do() -> None:
    text = PAGE.read_text()
    table = text.partition("<!-- rights -->\n")[2].partition("\n<!-- /rights -->")[0]
    assert table == shown(), f"put this between the marks of {PAGE.name}:\n{shown()}"


def test_everything_a_member_may_ask_names_its_workspace() -> None:
    for subject in (*MEMBER.publish, *MEMBER.subscribe):
        assert re.search(r"[._]ws([.]|$)|^_INBOX\.ak-ws-1\.>$", subject), subject


def test_what_a_member_may_do_crosses_between_the_accounts() -> None:
    asked = (*identities.SERVICES, identities.API, "tm.registry.*.*")
    assert [one for one in MEMBER.publish if not any(matches(each, one) for each in asked)] == []
    heard = (*identities.STREAMS, "_INBOX.>")
    assert [one for one in MEMBER.subscribe if not any(matches(each, one) for each in heard)] == []


def test_nothing_crosses_twice() -> None:
    """A message that two imports match is delivered twice."""
    asked = (*identities.SERVICES, identities.API)
    assert [(a, b) for a in asked for b in asked if a != b and matches(a, b)] == []


@pytest.mark.parametrize("kind", ["worker", "gpu-worker"])
def test_a_worker_reads_no_stream_that_is_closed_to_it(kind: str) -> None:
    rights = identities.worker(kind, "wk-1")
    for spec in streams.common_streams():
        assert not _may(rights, f"$JS.API.DIRECT.GET.{spec.name}")
        assert not _may(rights, f"$JS.API.STREAM.PURGE.{spec.name}")
    assert _may(rights, "$JS.API.STREAM.MSG.GET.KV_pools")
    assert _may(rights, "$JS.API.DIRECT.GET.OBJ_blobs_ws")


def _may(rights: Rights, subject: str) -> bool:
    denied = any(matches(pattern, subject) for pattern in rights.publish_denied)
    return not denied and any(matches(pattern, subject) for pattern in rights.publish)

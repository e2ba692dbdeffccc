"""Tests wait for what can be observed, not for time to pass."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]

# Programs that tests run, and what plays a function or a part: there a sleep is the work, or a period.
NOT_TESTS = (
    "e2e/programs/",
    "e2e/seeds/",
    "integration/app/class_programs.py",
    "integration/app/programs.py",
)
PROGRAM = "_program.py"  # how the names of others end
ALLOWED = {
    "waiting.py": "the pause between two looks",
    "integration/client/played_worker.py": "the work of a generator",
    "integration/client/test_failures.py slow_square": "the work of a function",
    "integration/client/test_maps.py later_first": "the work of a function",
    "integration/client/test_maps.py nap": "the work of a function",
    "integration/client/test_maps.py large": "the work of a function",
    "integration/deploying/test_autoscaler.py slow": "the work of a function",
    "integration/deploying/test_autoscaler.py wait": "the work of a function",
    "integration/deploying/test_deploying.py slow": "the work of a function",
    "integration/deploying/test_replaced_containers.py work": "the work of a function",
    "integration/identity/test_tokens.py wait": "the work of a function",
    "integration/scheduler/conftest.py restart": "the outage itself",
    "integration/scheduler/played_parts.py _report_for_ever": "the period of a worker's reports",
    "integration/scheduler/played_parts.py _place": "a worker that answers too late",
}


def sleeps(node: ast.AST, function: str = "") -> Iterator[tuple[str, int]]:
    """Yield (function, line) of every call of something named `sleep`; `sleep(0)` is a turn of the loop."""
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(child, ast.Call):
            name = getattr(child.func, "attr", getattr(child.func, "id", ""))
            if name == "sleep" and not (child.args and ast.unparse(child.args[0]) == "0"):
                yield function, child.lineno
        yield from sleeps(child, inner)


def test_no_test_sleeps_to_wait_for_something() -> None:
    found, used = [], set()
    for file in sorted(TESTS.rglob("*.py")):
        name = file.relative_to(TESTS).as_posix()
        if name.startswith(NOT_TESTS) or name.endswith(PROGRAM):
            continue
        text = file.read_text()
        for function, line in sleeps(ast.parse(text)) if "sleep" in text else ():
            keys = {name, f"{name} {function}"} & ALLOWED.keys()
            used |= keys
            if not keys:
                found.append(f"{name}:{line} in {function}")
    assert not found, "wait for a condition (`waiting.until`), an event or a moved clock instead"
    assert used == ALLOWED.keys(), "what is allowed and not there any more"

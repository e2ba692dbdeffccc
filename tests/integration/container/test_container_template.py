"""Templates: what a fork shares with its siblings, and what not."""

import subprocess
import sys
import textwrap
from pathlib import Path

from container_harness import Start, Template, end_single, start_single

# What a plain function must not pay for. `--single` shows it: there nothing is imported ahead.
HEAVY = """
    asyncio click cloudpickle concurrent dataclasses email http inspect json logging msgspec multiprocessing
    nats numpy pickle pydantic rich ssl subprocess tempfile tblib traceback unittest urllib
""".split()  # noqa: SIM905 - a list of words


def write(folder: Path, source: str) -> dict[str, object]:
    (folder / "hello.py").write_text(textwrap.dedent(source))
    return {"sources": (str(folder),), "module": "hello", "qualname": "f"}


def test_forks_do_not_share_random_numbers(start: Start) -> None:
    source = "import random\ndef f(): return random.random()"
    drawn = {start(source).call() for _ in range(5)}
    assert len(drawn) == 5


def test_forks_of_a_process_that_has_numpy_do_not_share_its_random_numbers(tmp_path: Path) -> None:
    code = """
        import os, sys, numpy.random
        from tidemill._container import lifecycle
        drawn = []
        for _ in range(2):
            read, write = os.pipe()
            if not os.fork():
                lifecycle.reseed()
                os.write(write, str(numpy.random.random()).encode())
                os._exit(0)
            drawn.append(os.read(read, 100))
        sys.exit(drawn[0] == drawn[1])
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path).returncode == 0


def test_a_plain_function_pays_for_no_import_that_it_does_not_need(tmp_path: Path) -> None:
    source = write(tmp_path, "import sys\ndef f(): return sorted(sys.modules)")
    container, process = start_single(tmp_path)
    container.start(**source)
    loaded = container.call()
    roots = {name.partition(".")[0] for name in loaded}
    assert sorted(roots.intersection(HEAVY)) == []
    end_single(container, process)


def test_a_container_started_by_itself_has_what_the_loader_reads_at_start(tmp_path: Path) -> None:
    source = write(
        tmp_path, "import os, sys\ndef f(): return sys.flags.optimize, os.environ['PYTHONOPTIMIZE']"
    )
    container, process = start_single(tmp_path, PYTHONOPTIMIZE="2")
    container.start(**source)
    assert container.call() == (2, "2")
    end_single(container, process)


def test_one_container_knows_nothing_of_another(start: Start) -> None:
    source = """
        import os, sys
        value = None
        def f(new):
            global value
            old, value = value, new
            return old, os.environ.get("MINE"), "hello" in sys.modules
    """
    one = start(source, env={"MINE": "1"})
    two = start(source)
    assert one.call("a") == (None, "1", True)
    assert two.call("b") == (None, None, True)


def test_a_child_has_no_descriptor_of_the_template_or_of_another_child(start: Start) -> None:
    source = """
        import os
        def f():
            found = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            return [os.readlink(path) for path in found if os.path.exists(path)]
    """
    containers = [start(source) for _ in range(3)]
    counts = [sum(name.startswith("socket:") for name in container.call()) for container in containers]
    assert counts == [1, 1, 1], "its own to the worker"


def test_a_container_learns_of_its_surroundings_when_it_starts_and_variables_of_users_win(
    template: Template,
) -> None:
    container = template.fork()
    surroundings = {"MARK": "here", "TASK": "co-1"}
    container.start(module="os", qualname="getenv", surroundings=surroundings, env={"MARK": "mine"})
    assert (container.call("MARK"), container.call("TASK")) == ("mine", "co-1")


def test_a_container_made_ahead_has_everything_imported_and_no_descriptor_of_others(
    tmp_path: Path,
) -> None:
    template = Template(tmp_path)
    try:
        # Asked for while the template imports: those that are needed now are made before.
        ahead, now = template.fork_all(ahead=[True, False])
        source = """
            import os, sys
            def f(name):
                found = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
                links = [os.readlink(path) for path in found if os.path.exists(path)]
                return sum(link.startswith("socket:") for link in links), name in sys.modules
        """
        (tmp_path / "hello.py").write_text(textwrap.dedent(source))
        for container in (ahead, now):
            container.start(sources=(str(tmp_path),), module="hello", qualname="f")
        assert ahead.call("tidemill._container.warming") == (1, True)
        assert now.call("os") == (1, True)
    finally:
        template.close()


def test_the_alias_for_modal_is_in_place(start: Start) -> None:
    container = start("import modal, tidemill\ndef f(): return modal is tidemill")
    assert container.call() is True


def test_the_layer_stands_behind_everything_else(start: Start) -> None:
    container = start(
        "import sys, tidemill, os\ndef f(): return sys.path, os.path.dirname(tidemill.__path__[0])"
    )
    path, layer = container.call()
    assert path[-1] == layer

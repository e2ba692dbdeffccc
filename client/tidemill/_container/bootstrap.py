"""The first file of a container, run by path with the image's own Python.

    python -s -P <layer>/tidemill/_container/bootstrap.py <template's socket>
    python -s -P <layer>/tidemill/_container/bootstrap.py --single <runner's socket> <init's socket> <id>
    python -s -P <layer>/tidemill/_container/bootstrap.py --snapshot <template's> <init's> <output> <id>

`--web <layer>` in front of the sockets names a second layer, for web functions.

The first form becomes a template that containers are forked from. The second becomes one container at
once, for functions whose variables the interpreter or the loader reads at its start (`LD_*`, `PYTHON*`):
those cannot be given to a fork. The third becomes a template with user code in it. With `--sandboxed`
before all that, it is in a sandbox, and containers take namespaces of their own inside it.

The runtime layer goes onto `sys.path` last, so that the image's packages win over ours. Only `tidemill`
itself always comes from the layer: it speaks with a worker of the same version.
"""

import os
import sys


def put_layer_in_place(layer: str) -> None:
    """Make the runtime layer importable, behind everything that the image has, and `modal` by our alias."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    sys.path.append(layer)
    spec = PathFinder.find_spec("tidemill", [layer])
    if spec is None or spec.loader is None:
        raise SystemExit(f"there is no tidemill in {layer}")
    module = sys.modules["tidemill"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    from tidemill import _alias

    _alias.install(
        force=True
    )  # an image's own copy of the real one would look for a server that is not there


def main(arguments: list[str]) -> None:
    """Become what the arguments say."""
    from tidemill._container import template

    sys.argv = [""]
    is_sandboxed = arguments[0] == "--sandboxed"
    arguments = arguments[is_sandboxed:]
    kind = arguments[0] if arguments[0] in ("--single", "--snapshot", "--trials") else ""
    rest = arguments[bool(kind) :]
    for_web = rest[0] == "--web"
    if for_web:
        sys.path.append(rest[1])
        rest = rest[2:]
    if kind == "--single":
        template.run_single(int(rest[0]), int(rest[1]), rest[2], sandboxed=is_sandboxed)
    elif kind == "--snapshot":
        sock, control, output = map(int, rest[:3])
        template.run_snapshot(sock, control, output, rest[3], for_web=for_web, sandboxed=is_sandboxed)
    elif kind == "--trials":
        from tidemill._container import trials

        trials.main(list(map(int, rest)))
    else:
        template.run(int(rest[0]), for_web=for_web, sandboxed=is_sandboxed)


# pathlib would cost milliseconds here.
_LAYER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

if __name__ == "__main__":
    put_layer_in_place(_LAYER)
    main(sys.argv[1:])
elif __name__ == "__mp_main__":  # a process that user code starts with `multiprocessing`, by spawning
    put_layer_in_place(_LAYER)

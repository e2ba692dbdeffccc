"""`python -m tidemill script.py [arguments]`, or `-m package.module`: run a program that says `import modal`.

As with `python` itself the program is `__main__`, its folder (with `-m` the current one) comes first on
`sys.path`, and `sys.argv` begins with its own name.
"""

import importlib.util
import sys
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from tidemill import _alias

USAGE = """\
usage: python -m tidemill SCRIPT [ARGUMENT...]
       python -m tidemill -m MODULE [ARGUMENT...]

Runs a program in which `import modal` means Tidemill. The command line is `tidemill`."""


def main() -> None:
    """Run what the command line names."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{USAGE}\n")
        return
    _alias.install()
    sys.excepthook = _show
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        _run_module(arguments[1], arguments[2:])
    elif arguments and not arguments[0].startswith("-"):
        _run_script(Path(arguments[0]), arguments[1:])
    else:
        sys.exit(USAGE)


def _run_script(path: Path, arguments: list[str]) -> None:
    try:
        source = path.read_bytes()
    except OSError as error:
        sys.exit(f"error: {path} cannot be read: {error.strerror}")
    sys.argv[:] = [str(path), *arguments]
    sys.path[0] = str(path.resolve().parent)
    module = ModuleType("__main__")
    module.__file__ = str(path.absolute())
    _execute(module, compile(source, module.__file__, "exec"))


def _run_module(name: str, arguments: list[str]) -> None:
    sys.path[0] = str(Path.cwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ImportError as error:
        sys.exit(f"error: {name} cannot be imported: {error}")
    loader = spec.loader if spec is not None else None
    get_code = getattr(loader, "get_code", None)
    code = get_code(spec.name) if spec is not None and get_code is not None else None
    if spec is None or code is None:
        sys.exit(f"error: no module named {name} that could be run")
    sys.argv[:] = [spec.origin or name, *arguments]
    module = ModuleType("__main__")
    module.__file__, module.__spec__, module.__package__ = spec.origin, spec, spec.parent
    module.__loader__ = loader
    _execute(module, code)


def _execute(module: ModuleType, code: CodeType) -> None:
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module  # it stays: threads of the program may outlive its last line
    exec(code, module.__dict__)  # noqa: S102 - running a program is what this is for


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show what ended the program as `python` would: beginning with its own frames."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        traceback = traceback.tb_next
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)


if __name__ == "__main__":
    main()

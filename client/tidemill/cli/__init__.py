"""The command line. `main` is the program `tidemill`; everything else is imported when it is needed."""

import sys


def main() -> None:
    """Run the command that the arguments name; ends the process."""
    if sys.version_info < (3, 11):  # noqa: UP036 - a folder that was copied asks for no version
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"error: Tidemill needs Python 3.11 or newer, this is {found}\nhint: use a newer Python")
    from tidemill.cli.program import main as program

    program()

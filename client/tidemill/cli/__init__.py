"""The command line. `main` is the program `tidemill`; everything else is imported when it is needed."""


def main() -> None:
    """Run the command that the arguments name; ends the process."""
    from tidemill.cli.program import main as program

    program()

"""`python -m tidemill.cli`: the program `tidemill`, where its script is not on the path."""

from tidemill.cli import main

if __name__ == "__main__":
    main()

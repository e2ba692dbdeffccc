"""`python -m tidemill_local temporary` or `up`: run a stack until it is told to end."""

import sys

from tidemill_local.supervisor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

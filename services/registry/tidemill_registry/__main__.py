"""`python -m tidemill_registry`: run the registry, or only migrate its database."""

import sys

from tidemill_registry.commands import main

main(sys.argv[1:])

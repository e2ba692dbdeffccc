"""`python -m tidemill_common.healthcheck`: whether the service in this container is ready for work.

For container engines: ends with 0 when `/readyz` says so, else with 1 and the reason.
"""

import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

TIMEOUT = 2.5  # seconds


def main() -> None:
    """Ask the service on `TIDEMILL_HEALTH_PORT`."""
    url = f"http://127.0.0.1:{os.environ.get('TIDEMILL_HEALTH_PORT', '')}/readyz"
    try:
        with urlopen(url, timeout=TIMEOUT):
            return
    except HTTPError as error:
        sys.exit(error.read().decode(errors="replace").strip())
    except (URLError, OSError, ValueError) as error:
        sys.exit(f"{url} does not answer: {error}")


if __name__ == "__main__":
    main()

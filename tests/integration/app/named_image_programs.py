"""What runs in images that have names."""

import os


def look() -> tuple[int, str, str]:
    import tidemill_named

    return tidemill_named.ANSWER, os.environ["COLOUR"], os.environ["TIDEMILL_IMAGE_ID"]

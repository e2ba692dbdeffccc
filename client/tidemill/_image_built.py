"""What `Image.build` has run in a container of the image."""

import os


def identify() -> str:
    """Return the id of the image that this container was made from."""
    return os.environ["TIDEMILL_IMAGE_ID"]

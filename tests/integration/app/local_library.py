"""A local module that has to be sent along."""


def triple(x: int) -> int:
    return 3 * x

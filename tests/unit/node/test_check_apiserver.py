"""check-apiserver.sh, which keepalived runs: an apiserver through the own proxy, and through the VIP where held."""

from __future__ import annotations

import pytest

from tests.unit.node.machine import Machine

CHECK = ("check-apiserver.sh",)
OWN, VIP, V6 = "198.51.100.11:8443", "198.51.100.1:8443", "[2001:db8::1]:8443"


def passes(machine: Machine, vip: str = "198.51.100.1", at: str = VIP) -> bool:
    machine.put("log")
    done = machine.run(CHECK, "1.5", f"https://{OWN}/readyz", vip, f"https://{at}/readyz")
    assert done.stderr == ""
    return done.returncode == 0


def asked(machine: Machine) -> list[str]:
    calls = [line for line in machine.log if line.startswith("curl ")]
    assert all(" -q " in call and " -gkfs " in call for call in calls)
    return [call.split("//")[1].split("/")[0] for call in calls]


def test_node_without_the_vip_asks_its_own_proxy_alone(machine: Machine) -> None:
    machine.put(f"answers/{VIP}", "000")
    assert passes(machine)
    assert asked(machine) == [OWN]


def test_node_whose_own_proxy_does_not_answer_fails(machine: Machine) -> None:
    machine.put(f"answers/{OWN}", "000")
    assert not passes(machine)
    assert asked(machine) == [OWN]


@pytest.mark.parametrize(
    ("line", "vip", "at"),
    [
        ("2: eth0    inet 198.51.100.1/32 scope global eth0", "198.51.100.1", VIP),
        ("2: eth0    inet6 2001:db8::1/64 scope global", "2001:db8::1", V6),
    ],
)
def test_holder_has_to_be_answered_through_the_vip_too(machine: Machine, line: str, vip: str, at: str) -> None:
    machine.put("addresses", f"{line}\n")
    assert passes(machine, vip, at)
    assert asked(machine) == [OWN, at]
    machine.put(f"answers/{at}", "000")
    assert not passes(machine, vip, at)


@pytest.mark.parametrize("address", ["198.51.100.10/32", "198.51.100.100/24", "8.198.51.100.1/32"])
def test_vip_is_not_found_in_a_longer_address(machine: Machine, address: str) -> None:
    machine.put("addresses", f"2: eth0    inet {address} scope global eth0\n")
    machine.put(f"answers/{VIP}", "000")
    assert passes(machine)

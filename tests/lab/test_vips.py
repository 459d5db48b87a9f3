"""Several VIPs, VIPs of IPv6 and of both families: deployed to green, taken over as a whole, and back again."""

from __future__ import annotations

import pytest

from tests.lab.bastion import Bastion

SECOND = "198.51.100.101"
TAKEOVER_SECONDS = 60


def sources(bastion: Bastion) -> str:
    """Return the IPv6 addresses of the nodes as bash words."""
    return f"({' '.join(node.address6 for node in bastion.lab.nodes)})"


def holders_of(bastion: Bastion, address: str) -> list[str]:
    running = bastion.running
    return [node for node in running if f" {address}/" in bastion.inside(node, "ip", "-o", "addr", "show")]


def answered(bastion: Bastion, address: str) -> bool:
    """Tell whether a client on the bastion gets an answer through an address."""
    host = f"[{address}]" if ":" in address else address
    words = ["curl", "-ksf", "--max-time", "2", "-o", "/dev/null", f"https://{host}:8443/readyz"]
    return bastion.lab.run(words, capture=True).returncode == 0


def taken_over(bastion: Bastion, addresses: list[str]) -> None:
    """Stop the proxy of the holder, and see that all addresses go to the same other node and are served there."""

    def settled_elsewhere() -> bool:
        found = [holders_of(bastion, address) for address in addresses]
        return all(each == ["lb2"] for each in found) and all(answered(bastion, each) for each in addresses)

    bastion.inside("lb1", "systemctl", "stop", "haproxy")
    bastion.wait_until(settled_elsewhere, TAKEOVER_SECONDS)
    bastion.inside("lb1", "systemctl", "start", "haproxy")
    bastion.wait_until(lambda: all(holders_of(bastion, each) == ["lb1"] for each in addresses), TAKEOVER_SECONDS)


def green_with(bastion: Bastion, addresses: list[str], **variables: str) -> None:
    """Push, see that verify is green and every address served, fail over, and push what was there before."""
    env = bastion.environment(KUBE_APISERVER="", **variables)
    bastion.exlb("push-config", "--yes", env=env)
    bastion.exlb("verify", env=env)
    assert all(answered(bastion, address) for address in addresses)
    taken_over(bastion, addresses)
    assert "no changes" in bastion.exlb("push-config", env=env).said
    bastion.exlb("push-config", "--yes")


@pytest.mark.slow
def test_two_vips_move_together(green: Bastion) -> None:
    green_with(green, [green.lab.vip, SECOND], EXTRA_VIPS=f"({SECOND}/24)")


def test_ipv6_vip_by_unicast(green: Bastion) -> None:
    vip6 = green.lab.vip6
    green_with(green, [vip6], MASTER_VIP=f"{vip6}/64", VRRP_IPS=sources(green))


@pytest.mark.slow
def test_ipv6_vip_by_multicast_on_an_interface_that_is_found(green: Bastion) -> None:
    green_with(green, [green.lab.vip6], MASTER_VIP=green.lab.vip6, VRRP_MODE="multicast", VIP_IF="auto")


@pytest.mark.slow
@pytest.mark.parametrize("bind", ["all", "vip", "node"])
def test_vips_of_both_families(green: Bastion, bind: str) -> None:
    vips = [green.lab.vip, green.lab.vip6]
    green_with(green, vips, EXTRA_VIPS=f"({green.lab.vip6}/64)", BIND=bind)


def test_vip_outside_of_the_networks_of_a_node_is_refused(green: Bastion) -> None:
    ran = green.exlb("push-config", env=green.environment(EXTRA_VIPS="(2001:db8:99::1/64)"), status=3)
    assert "lb1: EXTRA_VIPS=2001:db8:99::1 is outside of the network of host0" in ran.said

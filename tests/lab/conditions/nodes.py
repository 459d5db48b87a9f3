"""Nodes that cannot be asked, lack something, have no space, or let nobody in."""

from __future__ import annotations

from exlb_fab.errors import EXIT_OK, EXIT_UNREACHABLE
from exlb_fab.lab.layout import VIP
from tests.lab.conditions.base import ALL, HOLDER, SECOND, THIRD, Condition, fail, others, warn
from tests.lab.conditions.faults import NFT, On, closed_but_for, cut_off, power_cut, powered_off, rules, stopped

_REDIRECTED = """
table inet condition {
    chain redirected {
        type nat hook prerouting priority dstnat; policy accept;
        iifname host0 tcp dport 8443 redirect to :9999
    }
}
"""
_LOST_EARLY = """
table netdev condition {
    chain early {
        type filter hook ingress device host0 priority 0; policy accept;
        tcp dport 8443 drop
    }
}
"""
_LISTENER_CLOSED = closed_but_for("meta l4proto 112 accept")
_DROPPED_EARLY = """
table inet condition {
    chain early {
        type filter hook prerouting priority raw; policy accept;
        iifname host0 tcp dport 8443 drop
    }
}
"""
# More than a lab's clients open.
_LISTENER_LIMITED = """
table inet condition {
    set clients {
        type ipv4_addr
        flags dynamic
        timeout 1m
    }
    chain input {
        type filter hook input priority filter; policy accept;
        tcp dport 8443 ct state new add @clients { ip saddr limit rate over 500/second } drop
    }
}
"""
_VIP_REFUSED = f"""
table inet condition {{
    chain output {{
        type filter hook output priority filter; policy accept;
        ip daddr {VIP} tcp dport 8443 reject
    }}
}}
"""


def _mounted(options: str, then: str = "true") -> On:
    """Have another file system at /var/log of a node."""
    return On((SECOND,), f"mount -t tmpfs -o {options} condition /var/log && {then}", "umount -l /var/log")


CONDITIONS = (
    Condition(
        "the holder powered off",
        "nodes",
        powered_off(HOLDER),
        (
            *fail("node.ssh", HOLDER, says="cannot connect"),
            *warn("backend.servers", *others(HOLDER), says="198.51.100.11 DOWN"),
        ),
        status=EXIT_UNREACHABLE,
        takes="the backends",
    ),
    Condition(
        "the power of a backup cut",
        "nodes",
        power_cut(THIRD),
        (
            *fail("node.ssh", THIRD, says="cannot connect"),
            *warn("backend.servers", *others(THIRD), says="198.51.100.13 DOWN"),
        ),
        status=EXIT_UNREACHABLE,
        takes="the backends",
    ),
    Condition(
        "the holder cut off from everybody",
        "nodes",
        cut_off(HOLDER),
        (
            *fail("node.ssh", HOLDER, says="cannot connect"),
            *warn("backend.servers", *others(HOLDER), says="198.51.100.11 DOWN"),
        ),
        status=EXIT_UNREACHABLE,
        takes="the backends",
    ),
    Condition(
        "sshd of the holder stopped",
        "nodes",
        stopped("ssh", HOLDER),
        (
            *fail("node.ssh", HOLDER, says="cannot connect"),
            *warn("vip.single-holder", says=f"{VIP} is served by a node that could not be asked: {HOLDER}"),
        ),
        status=EXIT_UNREACHABLE,
    ),
    Condition(
        "sshd of the holder stopped, multicast",
        "nodes",
        stopped("ssh", HOLDER),
        (
            *fail("node.ssh", HOLDER, says="cannot connect"),
            *warn("vip.single-holder", says=f"{VIP} is served by a node that could not be asked: {HOLDER}"),
        ),
        status=EXIT_UNREACHABLE,
        variables={"VRRP_MODE": "multicast"},
    ),
    Condition(
        "no host key is known",
        "nodes",
        None,
        fail("node.ssh", *ALL, says="is not known"),
        status=EXIT_UNREACHABLE,
        asked={"SSH_KNOWN_HOSTS": "/dev/null"},
    ),
    Condition(
        "sudo wants a password",
        "nodes",
        None,
        fail("node.ssh", *ALL, says="sudo refuses: sudo: a password is required"),
        asked={"SSH_USER": "clerk"},
    ),
    Condition(
        "a program is not installed",
        "nodes",
        On((THIRD,), "mv /usr/bin/socat /usr/bin/socat.kept", "mv /usr/bin/socat.kept /usr/bin/socat"),
        (
            *fail("node.packages", THIRD, says="not installed: socat"),
            # The admin socket is asked by it.
            *fail("node.running", THIRD, says="its admin socket does not answer"),
            *fail("backend.servers", THIRD, says="does not say how its backends are"),
        ),
    ),
    Condition(
        "disk full",
        "host",
        _mounted("size=512k"),
        fail("host.space", SECOND, says="no space for a change: /var/log"),
    ),
    Condition(
        "disk almost full",
        "host",
        _mounted("size=20m", "head -c 19500000 /dev/zero >/var/log/fill"),
        warn("host.space", SECOND, says="/var/log (on /var/log): 1 MB and"),
        status=EXIT_OK,
    ),
    Condition(
        "inodes used up",
        "host",
        _mounted("size=20m,nr_inodes=20"),
        fail("host.space", SECOND, says="no space for a change: /var/log"),
    ),
    Condition(
        "file system read-only",
        "host",
        _mounted("size=20m,ro"),
        fail("host.space", SECOND, says="the file system is read-only"),
    ),
    Condition(
        "the firewall of the holder is closed for the listener's port",
        "firewall",
        rules(_LISTENER_CLOSED, HOLDER),
        (
            *fail("firewall.ports", HOLDER, says="nftables does not let in: TCP port 8443"),
            *fail("listener.open", HOLDER, says=f"{HOLDER} reaches its own port 8443, and {SECOND} and {THIRD} cannot"),
            *fail("vip.request", *others(HOLDER), says=f"Failed to connect to {VIP}"),
        ),
    ),
    Condition(
        "a node alone does not let its own clients out to the VIP",
        "firewall",
        rules(_VIP_REFUSED, THIRD),
        fail("vip.request", THIRD, says=f"it is on {THIRD}, or between it and {HOLDER}"),
    ),
    Condition(
        "the firewall of a backup is closed for the listener's port",
        "firewall",
        rules(_LISTENER_CLOSED, THIRD),
        (
            *fail("firewall.ports", THIRD, says="nftables does not let in: TCP port 8443"),
            *fail("listener.open", THIRD, says=f"{THIRD} reaches its own port 8443, and {HOLDER} and {SECOND} cannot"),
        ),
    ),
    Condition(
        "clients of a backup are sent to another port of it",
        "firewall",
        rules(_REDIRECTED, SECOND),
        fail("listener.open", SECOND, says=f"{SECOND} reaches its own port 8443, and {HOLDER} and {THIRD} cannot"),
    ),
    Condition(
        "what is meant for a backup's port is lost in front of its firewall",
        "firewall",
        On((SECOND,), f"{NFT}; nft -f - <<'end'\n{_LOST_EARLY}\nend", "nft delete table netdev condition"),
        fail("listener.open", SECOND, says=f"{SECOND} reaches its own port 8443, and {HOLDER} and {THIRD} cannot"),
    ),
    Condition(
        "a backup drops what comes to the listener's port before its input chains",
        "firewall",
        rules(_DROPPED_EARLY, THIRD),
        (
            *fail("firewall.ports", THIRD, says="nftables does not let in: TCP port 8443"),
            *fail("listener.open", THIRD, says=f"{THIRD} reaches its own port 8443, and {HOLDER} and {SECOND} cannot"),
        ),
    ),
    Condition(
        "the firewall of the holder limits what one client may open",
        "firewall",
        rules(_LISTENER_LIMITED, HOLDER),
        warn("firewall.ports", HOLDER, says="nftables has rules that exlb does not understand"),
        status=EXIT_OK,
    ),
)

"""Proxies that do not run, do not answer, or share their port."""

from __future__ import annotations

from exlb_fab.lab.layout import VIP
from tests.lab.bastion import listens
from tests.lab.conditions.base import ADDRESSES, ALL, HOLDER, SECOND, THIRD, Condition, fail
from tests.lab.conditions.faults import On, asked_by_socket, crowded, hung, stopped

_HUNG = "haproxy on {} takes the connection, and says nothing of itself either"

CONDITIONS = (
    Condition(
        "proxy stopped on the holder",
        "proxy",
        stopped("haproxy", HOLDER),
        fail("node.proxy", HOLDER, says="haproxy is inactive"),
        takes="a check",
        typed=f"exlb restart haproxy --nodes {HOLDER}",
    ),
    Condition(
        "proxy stopped on a backup",
        "proxy",
        stopped("haproxy", THIRD),
        fail("node.proxy", THIRD, says="haproxy is inactive"),
    ),
    Condition(
        "all proxies stopped, the VIP pings",
        "proxy",
        stopped("haproxy", *ALL),
        (
            *fail("node.proxy", *ALL, says="haproxy is inactive"),
            *fail("backend.any", says="no node sees any backend up"),
            *fail("vip.request", *ALL, says=f"Failed to connect to {VIP}"),
            *fail("vip.bastion", says="Connection refused"),
        ),
        takes="a check",
    ),
    Condition(
        "proxy hangs on the holder",
        "proxy",
        hung("haproxy", HOLDER),
        (
            *fail("node.running", HOLDER, says="it hangs"),
            *fail("backend.servers", HOLDER, says="does not say how its backends are"),
            *fail("backend.request", HOLDER, says=_HUNG.format(HOLDER)),
            *fail("vip.request", *ALL, says=_HUNG.format(HOLDER)),
            *fail("vip.bastion", says=_HUNG.format(HOLDER)),
        ),
        typed=f"exlb restart haproxy --nodes {HOLDER}",
    ),
    Condition(
        "proxy hangs on a backup",
        "proxy",
        hung("haproxy", SECOND),
        (
            *fail("node.running", SECOND, says="it hangs"),
            *fail("backend.servers", SECOND, says="does not say how its backends are"),
            *fail("backend.request", SECOND, says=_HUNG.format(SECOND)),
        ),
        typed=f"exlb restart haproxy --nodes {SECOND}",
    ),
    Condition(
        "proxy not enabled at boot",
        "proxy",
        On((SECOND,), "systemctl disable haproxy", "systemctl enable haproxy"),
        fail("node.proxy", SECOND, says="disabled at boot"),
        typed="exlb install",
    ),
    Condition(
        "proxy no longer listens on its port",
        "proxy",
        asked_by_socket("disable frontend kube-master", "enable frontend kube-master", THIRD),
        (
            *fail("node.ports", THIRD, says="nobody listens on 8443"),
            *fail("backend.request", THIRD, says=f"Failed to connect to {ADDRESSES[2]}"),
        ),
    ),
    Condition(
        "another program shares the port of the proxy",
        "proxy",
        # Both ask for it, and both are root's: the kernel spreads the connections over the two.
        On(
            (THIRD,),
            "systemd-run -q --collect --unit=foreign socat TCP4-LISTEN:8443,reuseport,fork OPEN:/dev/null && "
            f"{listens(8443, 'socat')}",
            "systemctl stop foreign",
        ),
        fail("node.ports", THIRD, says="socat listens on 8443"),
        also=fail("backend.request", THIRD, says="takes the connection and has no apiserver to give it to"),
    ),
    Condition(
        "the proxy of the holder has no connection left",
        "proxy",
        crowded(8443, SECOND, 30),
        (
            *fail("listener.connections", HOLDER, says="no connection is left: 30 of 30"),
            *fail("backend.request", HOLDER, says=f"haproxy on {HOLDER} has no connection left: 30 of 30"),
            *fail("vip.request", *ALL, says=f"haproxy on {HOLDER} has no connection left: 30 of 30"),
            *fail("vip.bastion", says=f"haproxy on {HOLDER} has no connection left: 30 of 30"),
        ),
        variables={"MAXCONN": "30"},
    ),
    Condition(
        "proxy could not bind the VIP again: ip_nonlocal_bind is off while it runs",
        "proxy",
        On(
            (THIRD,),
            "sysctl -q -w net.ipv4.ip_nonlocal_bind=0",
            "sysctl -q -w net.ipv4.ip_nonlocal_bind=1",
        ),
        fail("node.proxy", THIRD, says="could not start again: net.ipv4.ip_nonlocal_bind is 0"),
        typed=f"exlb exec --sudo --nodes {THIRD} -- sysctl -p /etc/sysctl.d/60-exlb.conf",
        variables={"BIND": "vip"},
    ),
    Condition(
        "proxy cannot bind the VIP: ip_nonlocal_bind is off",
        "proxy",
        On(
            (THIRD,),
            "sysctl -q -w net.ipv4.ip_nonlocal_bind=0 && ! systemctl restart haproxy",
            "sysctl -q -w net.ipv4.ip_nonlocal_bind=1; systemctl reset-failed haproxy; systemctl start haproxy",
        ),
        fail("node.proxy", THIRD, says="cannot bind socket (Cannot assign requested address)"),
        variables={"BIND": "vip"},
    ),
)

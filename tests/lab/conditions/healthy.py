"""Ways in which an entrance may stand: nothing is wrong, and nothing may be called so."""

from __future__ import annotations

from exlb_fab.lab.layout import VIP
from tests.lab.conditions.backends import BY_NAME, named_backend
from tests.lab.conditions.base import ALL, HOLDER, OVER_IPV6, Condition, healthy, warn
from tests.lab.conditions.faults import TCPDUMP, On, apiservers, backends, failed_over, told_by_exlb

_DRAINED = "198.51.100.12"
# While keepalived stands still, which would bring it back sooner than anybody could look.
_TAKEN_AWAY = (
    f"systemctl kill -s STOP keepalived && ip addr del {VIP}/32 dev host0 && ! ip -o addr show | grep -F ' {VIP}/'; "
    "gone=$?; systemctl kill -s CONT keepalived && exit $gone"
)
_NO_APISERVER = ("backend.any", "certificate.dates", "certificate.names")

CONDITIONS: tuple[Condition, ...] = (
    healthy("as deployed"),
    healthy("VRRP_MODE=multicast", variables={"VRRP_MODE": "multicast"}),
    healthy("BIND=vip", variables={"BIND": "vip"}),
    healthy("LISTENER_LAYOUT=frontend", variables={"LISTENER_LAYOUT": "frontend"}),
    healthy("FAILOVER=fault", variables={"FAILOVER": "fault"}),
    healthy("TRACK=script,port,apiserver", variables={"TRACK": "script,port,apiserver"}),
    healthy(
        "TRACK=process in a container, where a script takes its place",
        *warn("config.as-asked", *ALL, says="in a container the kernel does not tell it of processes"),
        variables={"TRACK": "process"},
    ),
    healthy("TIMING=fast", variables={"TIMING": "fast"}),
    healthy("TIMING=documents", variables={"TIMING": "documents"}),
    healthy("AUTH_PASS", variables={"AUTH_PASS": "verdict1"}),
    healthy("an IPv6 VIP", variables=OVER_IPV6),
    healthy("two VIPs", variables={"EXTRA_VIPS": "(198.51.100.101/24)"}),
    healthy(
        "statistics page and exporter",
        variables={"STATS_BIND": "0.0.0.0", "STATS_PASSWORD": "verdict", "EXPORTER": "yes"},
    ),
    healthy("a backend by its name", variables=BY_NAME, needs=named_backend),
    healthy(
        "one backend drained on purpose",
        *warn("backend.servers", *ALL, says="somebody told the proxy to drain it"),
        fault=told_by_exlb(("backend", "drain", _DRAINED), ("backend", "ready", _DRAINED)),
    ),
    healthy(
        "apiservers that want a login (anonymous-auth=false), HEALTH_CHECK=tcp",
        fault=apiservers("unauthorized", *ALL),
        variables={"HEALTH_CHECK": "tcp"},
    ),
    healthy(
        "nodes that drop pings",
        *warn("vip.ping", *ALL, says="drops ICMP"),
        fault=On(ALL, "sysctl -qw net.ipv4.icmp_echo_ignore_all=1", "sysctl -qw net.ipv4.icmp_echo_ignore_all=0"),
    ),
    healthy(
        "before kubeadm init",
        fault=apiservers("off", *ALL),
        options=("--expect-no-apiserver",),
        skips=_NO_APISERVER,
    ),
    healthy(
        "before kubeadm init, TRACK=script,apiserver",
        fault=apiservers("off", *ALL),
        variables={"TRACK": "script,apiserver"},
        options=("--expect-no-apiserver",),
        skips=_NO_APISERVER,
    ),
    healthy(
        "before kubeadm init, FAILOVER=fault, TRACK=script,apiserver, with an extra listener",
        fault=apiservers("off", *ALL),
        variables={
            "TRACK": "script,apiserver",
            "FAILOVER": "fault",
            "EXTRA_LISTENERS": "('greeting 7001 198.51.100.12:7000')",
        },
        options=("--expect-no-apiserver",),
        needs=backends(7000, "lb2"),
        skips=(
            *_NO_APISERVER,
            *("vip.ping", "vip.request", "vip.mac", "vip.bastion", "vrrp.adverts", "listener.vip"),
        ),
    ),
    healthy(
        "after a failover, PREEMPT=no",
        fault=failed_over,
        variables={"PREEMPT": "no", "FAILOVER": "fault"},
    ),
    healthy(
        "the VIP taken away by hand: keepalived brings it back",
        fault=On((HOLDER,), _TAKEN_AWAY, "true"),
    ),
    healthy(
        "an entrance that stands, asked as if it were to come",
        command="doctor",
        needs=On(ALL, TCPDUMP, "true"),
    ),
)

# Labs of their own, by the releases of their nodes.
LABS: tuple[tuple[tuple[str, ...], Condition], ...] = (
    (
        ("bullseye", "trixie", "el9-like"),
        healthy("nodes of bullseye, trixie, el9-like", *warn("node.same-versions", says="versions differ")),
    ),
    (("bullseye", "bullseye"), healthy("nodes of bullseye")),
    (("trixie", "trixie"), healthy("nodes of trixie")),
    (("el9-like", "el9-like"), healthy("nodes of el9-like")),
    (
        ("bookworm",),
        healthy(
            "a single node",
            *warn("vip.single-holder", says="there is one node: nobody would take it over"),
            skips=("host.clock", "vrrp.agree"),
        ),
    ),
)

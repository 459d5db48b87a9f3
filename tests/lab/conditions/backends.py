"""Apiservers and other backends that are down, ill, drained, elsewhere, or show a wrong certificate."""

from __future__ import annotations

from exlb_fab.errors import EXIT_OK
from exlb_fab.lab.layout import VIP
from tests.lab.conditions.base import ADDRESSES, ALL, HOLDER, SECOND, THIRD, Condition, Finding, fail, others, warn
from tests.lab.conditions.faults import (
    APISERVER_CLOSED,
    SERVERS,
    Together,
    apiservers,
    asked_by_socket,
    backends,
    drained,
    name_of,
    no_backends,
    no_name_of,
    rules,
    shown_certificate,
    silent_backends,
)

_PORT = 7000
_NAME = "greeting.test"
BY_NAME = {"EXTRA_LISTENERS": f"('greeting 7001 {_NAME}:{_PORT}')"}
named_backend = Together((name_of(ADDRESSES[1], _NAME, *ALL), backends(_PORT, SECOND)))
_EXTRA = {"EXTRA_LISTENERS": f"('greeting 7001 198.51.100.12:{_PORT}')"}
_INGRESS = {
    "INGRESS_NODE_IPS": "(198.51.100.12 198.51.100.13)",
    "INGRESS_HTTP_NODEPORT": str(_PORT),
    "INGRESS_HTTP_PORT": "7080",
}


_UNREACHED = """
table inet condition {
    chain output {
        type filter hook output priority filter; policy accept;
        ip daddr { 198.51.100.12, 198.51.100.13 } tcp dport 6443 reject
    }
}
"""


def _nobody_behind(says: str) -> tuple[Finding, ...]:
    """Return what is to be said where no apiserver is behind any proxy."""
    return (
        *fail("backend.servers", *ALL, says=says),
        *fail("backend.request", *ALL, says="no apiserver to give it to"),
        *fail("backend.any", says="no node sees any backend up"),
        *fail("vip.request", *ALL, says="no apiserver to give it to"),
        *fail("vip.bastion", says="no apiserver to give it to"),
    )


def _one_down(mode: str, says: str) -> Condition:
    return Condition(
        f"one apiserver {mode}",
        "backends",
        apiservers(mode, "lb2"),
        warn("backend.servers", *ALL, says=says),
        status=EXIT_OK,
        takes="the backends",
    )


CONDITIONS = (
    _one_down("off", "198.51.100.12 DOWN: Connection refused"),
    _one_down("unhealthy", "198.51.100.12 DOWN: Internal Server Error (status 500)"),
    _one_down("hung", "198.51.100.12 DOWN"),
    Condition(
        "all apiservers off",
        "backends",
        apiservers("off", *ALL),
        _nobody_behind("0 of 3 up"),
        takes="the backends",
    ),
    Condition(
        "all apiservers unhealthy",
        "backends",
        apiservers("unhealthy", *ALL),
        _nobody_behind("(status 500)"),
        takes="the backends",
    ),
    Condition(
        "all apiservers want a login (anonymous-auth=false)",
        "backends",
        apiservers("unauthorized", *ALL),
        _nobody_behind("(status 401)"),
        takes="the backends",
    ),
    Condition(
        "something that is no apiserver answers in their place",
        "backends",
        apiservers("foreign", *ALL),
        (
            *fail("backend.request", *ALL, says="something that is no apiserver answers with status 404"),
            *fail("vip.request", *ALL, says="something that is no apiserver answers with status 404"),
            *fail("vip.bastion", says="something that is no apiserver answers with status 404"),
        ),
        variables={"HEALTH_CHECK": "tcp"},  # the health check of HTTP would take them for down
    ),
    Condition(
        "all apiservers hang, and their health check wants a connection alone",
        "backends",
        apiservers("hung", *ALL),
        (
            *fail("backend.request", *ALL, says="to an apiserver that it sees up, and no answer comes"),
            *fail("vip.request", *ALL, says="to an apiserver that it sees up, and no answer comes"),
            *fail("vip.bastion", says="to an apiserver that it sees up, and no answer comes"),
        ),
        variables={"HEALTH_CHECK": "tcp"},
    ),
    Condition(
        "a backup does not reach the apiservers of the other two but for one",
        "backends",
        rules(_UNREACHED, SECOND),
        (
            *warn("backend.servers", SECOND, says="1 of 3 up"),
            *fail("backend.any", says=f"{SECOND} sees only 198.51.100.11 up, on {HOLDER}"),
            *warn("certificate.names", says=f"was not seen of 198.51.100.12:6443 by {SECOND}"),
            *warn("certificate.dates", says=f"was not seen of 198.51.100.12:6443 by {SECOND}"),
        ),
        takes="the backends",
    ),
    Condition(
        "two of three apiservers off: the last is on a node",
        "backends",
        apiservers("off", SECOND, THIRD),
        (
            *warn("backend.servers", *ALL, says="1 of 3 up"),
            *fail("backend.any", says=f"only 198.51.100.11 is up, on {HOLDER} itself"),
        ),
        takes="the backends",
    ),
    Condition(
        "all apiservers drained on the holder",
        "backends",
        drained(HOLDER),
        (
            *fail("backend.servers", HOLDER, says="somebody told the proxy to drain it"),
            *fail("backend.request", HOLDER, says="no apiserver to give it to"),
            *fail("vip.request", *ALL, says="no apiserver to give it to"),
            *fail("vip.bastion", says="no apiserver to give it to"),
        ),
    ),
    Condition(
        "a backend of the running proxy is elsewhere",
        "backends",
        asked_by_socket(
            f"set server {SERVERS[1]} addr 198.51.100.99 port 6443",
            f"set server {SERVERS[1]} addr 198.51.100.12 port 6443",
            THIRD,
        ),
        fail("backend.servers", THIRD, says="198.51.100.12 is 198.51.100.99:6443"),
        # Until its check has failed, a client may be sent there.
        also=fail("backend.request", THIRD, says="to an apiserver that it sees up, and no answer comes"),
    ),
    Condition(
        "the firewall of a node keeps the other proxies from its apiserver",
        "backends",
        rules(APISERVER_CLOSED, THIRD),
        (
            *warn("firewall.backends", THIRD, says="nftables does not let in: TCP port 6443"),
            *warn("backend.servers", *others(THIRD), says="198.51.100.13 DOWN"),
        ),
        status=EXIT_OK,
        takes="the backends",
    ),
    Condition(
        "the certificate of an apiserver does not name the VIP",
        "certificates",
        shown_certificate("lb2"),
        warn("certificate.names", says=f"198.51.100.12:6443 lacks {VIP}"),
        status=EXIT_OK,
        takes="the backends",
    ),
    Condition(
        "the certificate of an apiserver has expired",
        "certificates",
        shown_certificate("lb2", VIP, begin_days=-400),
        fail("certificate.dates", says="198.51.100.12:6443 expired"),
        takes="the backends",
    ),
    Condition(
        "the certificate of an apiserver expires soon",
        "certificates",
        shown_certificate("lb2", VIP, begin_days=-360),
        warn("certificate.dates", says="198.51.100.12:6443 expires in"),
        status=EXIT_OK,
        takes="the backends",
    ),
    Condition(
        "the only backend of an extra listener down",
        "listeners",
        no_backends(_PORT, "lb2"),
        (
            *fail("backend.servers", *ALL, says="none of greeting"),
            *fail("listener.own", *ALL, says="has no backend to give it to"),
            *fail("listener.vip", *ALL, says="has no backend to give it to"),
        ),
        takes="the backends",
        variables=_EXTRA,
        needs=backends(_PORT, "lb2"),
    ),
    Condition(
        "the name of a backend does not resolve",
        "listeners",
        no_name_of(ADDRESSES[1], _NAME, THIRD, load="systemctl reload haproxy"),
        (
            *fail("backend.servers", THIRD, says="its name did not resolve when the proxy was loaded"),
            *fail("listener.own", THIRD, says="has no backend to give it to"),
        ),
        takes="the backends",
        variables=BY_NAME,
        needs=named_backend,
    ),
    Condition(
        "all backends of the ingress down",
        "listeners",
        no_backends(_PORT, "lb2", "lb3"),
        (
            *fail("backend.servers", *ALL, says="none of ingress-node"),
            *fail("listener.own", *ALL, says="has no backend to give it to"),
            *fail("listener.vip", *ALL, says="has no backend to give it to"),
        ),
        takes="the backends",
        variables=_INGRESS,
        needs=backends(_PORT, "lb2", "lb3"),
    ),
    Condition(
        "the backends of the ingress take connections and say nothing",
        "listeners",
        Together((no_backends(_PORT, "lb2", "lb3"), silent_backends(_PORT, "lb2", "lb3"))),
        (
            *fail("listener.own", *ALL, says="takes the connection and does not answer"),
            *fail("listener.vip", *ALL, says="takes the connection and does not answer"),
        ),
        takes="the backends",
        variables=_INGRESS,
        needs=backends(_PORT, "lb2", "lb3"),
    ),
    Condition(
        "one backend of the ingress down",
        "listeners",
        no_backends(_PORT, "lb3"),
        warn("backend.servers", *ALL, says="4 of 5 up\n198.51.100.13 DOWN: Connection refused"),
        status=EXIT_OK,
        takes="the backends",
        variables=_INGRESS,
        needs=backends(_PORT, "lb2", "lb3"),
    ),
)

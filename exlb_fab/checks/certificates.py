"""Do the apiservers' certificates name the entrance, and are they valid?"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from exlb_fab.certificates import Certificate
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.questions import shown_to

CHECKS = Register()

DAY_SECONDS = 86_400
SOON_DAYS = 30
ADD_HINT = (
    "kubeadm: add it to apiServer.certSANs of kubeadm-config, move /etc/kubernetes/pki/apiserver.* away and run "
    "`kubeadm init phase certs apiserver --config FILE`; kubeasz: add it to MASTER_CERT_HOSTS of the cluster's "
    "config.yml and renew the apiservers' certificates"
)
RENEW_HINT = "on a control-plane node: kubeadm certs renew apiserver, then restart kube-apiserver"


@CHECKS.overall("certificate.names", "The apiservers' certificates name what clients connect to")
def names(view: View) -> Verdict:
    shown = _shown(view)
    if isinstance(shown, Verdict):
        return shown
    lacking = {endpoint: [host for host in _hosts(view) if not found.covers(host)] for endpoint, found in shown.items()}
    told = [f"{endpoint} lacks {', '.join(hosts)}" for endpoint, hosts in lacking.items() if hosts]
    if told:
        cause = "a client that checks certificates, like kubectl, refuses to speak to it"
        return warned("; ".join(told), cause=cause, hint=ADD_HINT)
    return _unseen(view, shown) or passed(_counted(view, shown))


@CHECKS.overall("certificate.dates", "The apiservers' certificates are valid, and for some time")
def dates(view: View) -> Verdict:
    shown = _shown(view)
    if isinstance(shown, Verdict):
        return shown
    now = _now(view)
    if now is None:
        return skipped("no node tells the time")
    ended = [f"{endpoint} expired {_days(now - each.end)} ago" for endpoint, each in shown.items() if each.end < now]
    early = [
        f"{endpoint} is not valid before {_days(each.begin - now)} have passed"
        for endpoint, each in shown.items()
        if each.begin > now
    ]
    if ended or early:
        hint = RENEW_HINT if ended else "are the clocks right? exlb exec -- date -u"
        return failed("; ".join((*ended, *early)), hint=hint)
    soon = [
        f"{endpoint} expires in {_days(each.end - now)}"
        for endpoint, each in shown.items()
        if each.end - now < SOON_DAYS * DAY_SECONDS
    ]
    if soon:
        return warned("; ".join(soon), hint=RENEW_HINT)
    return _unseen(view, shown) or passed(f"for {_days(min(each.end for each in shown.values()) - now)}")


def _shown(view: View) -> Mapping[str, Certificate] | Verdict:
    """Return the certificates that nodes were shown, or why there are none."""
    if not view.answering:
        return skipped("no node could be asked")
    found = {name: each for node in view.answering for name, each in view.facts(node).certificates.items()}
    if found:
        return found
    return skipped("no node was shown one: no apiserver answers, or there is no openssl on the nodes")


def _hosts(view: View) -> tuple[str, ...]:
    """Return what clients connect to: the VIPs, and the host of KUBE_APISERVER."""
    named = urlsplit(view.cluster.kube_apiserver or "").hostname
    return tuple(dict.fromkeys((*map(str, view.cluster.vips), *([named] if named else []))))


def _counted(view: View, shown: Mapping[str, Certificate]) -> str:
    asked = sum(len(shown_to(view.cluster, node)) for node in view.cluster.nodes)
    return f"{len(shown)} of {asked} seen"


def _unseen(view: View, shown: Mapping[str, Certificate]) -> Verdict | None:
    """Warn of an apiserver that is up, and whose certificate the node that was to ask for it has not got."""
    states = [state for node in view.answering if (state := view.facts(node).proxy_state)]
    up = {server.address for state in states for server in state.servers if server.judged and server.up}
    unseen = {
        endpoint: node
        for node in view.answering
        for endpoint in shown_to(view.cluster, node)
        if endpoint in up and endpoint not in shown
    }
    if not unseen:
        return None
    node = next(iter(unseen.values()))
    told = ", ".join(f"of {endpoint} by {node}" for endpoint, node in unseen.items())
    return warned(
        f"the certificate was not seen {told}",
        cause="the node has no openssl, or does not reach it",
        hint=f"exlb ssh {node} -- openssl s_client -connect {next(iter(unseen))}",
    )


def _now(view: View) -> float | None:
    """Return the time as most nodes have it: one clock that is wrong makes no certificate invalid."""
    times = sorted(system.time for node in view.answering if (system := view.facts(node).system))
    return times[len(times) // 2] if times else None


def _days(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return f"{days} day{'' if days == 1 else 's'}"

"""Is the VIP where it should be, and is a client that connects to it served?"""

from __future__ import annotations

from collections.abc import Sequence

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.checks.firewall import blocking_adverts
from exlb_fab.checks.replies import served
from exlb_fab.cluster import Node, Vip
from exlb_fab.facts import vip_url
from exlb_fab.firewall import MANAGE_HINT
from exlb_fab.platforms import KEEPALIVED_UNIT

CHECKS = Register()


@CHECKS.overall("vip.single-holder", "Exactly one node holds the VIP")
def single_holder(view: View) -> Verdict:
    vip = view.cluster.vip
    holders = view.survey.holders(vip.address)
    match holders:
        case [node]:
            return passed(f"{vip} is on {node}")
        case []:
            return _nobody(view)
        case _:
            return _split(view, holders)


def _split(view: View, holders: Sequence[Node]) -> Verdict:
    said = f"split brain: {', '.join(map(str, holders))} all hold {view.cluster.vip}"
    blocked = blocking_adverts(view, holders)
    if blocked:
        return failed(said, cause=blocked, hint=MANAGE_HINT)
    return failed(
        said,
        cause="they do not hear each other's adverts",
        hint="exlb push-config --dry-run shows which files differ; a firewall between them may block protocol 112",
    )


def _nobody(view: View) -> Verdict:
    vip = view.cluster.vip
    if not view.answering:
        return skipped("no node could be asked")
    away = [str(node) for node in view.cluster.nodes if node not in view.answering]
    url = vip_url(view.cluster)
    if away and all(view.facts(node).replies[url].code is not None for node in view.answering):
        return warned(f"{vip} is served by a node that could not be asked: {' or '.join(away)}")
    hint = f"exlb exec --sudo -- journalctl -u {KEEPALIVED_UNIT} -n 20"
    return failed(f"no node holds {vip}", cause=_why_nobody(view), hint=hint)


def _why_nobody(view: View) -> str | None:
    stopped = [str(node) for node in view.answering if not view.facts(node).units[KEEPALIVED_UNIT].running]
    if len(stopped) == len(view.answering):
        return "keepalived runs on no node"
    return f"keepalived does not run on {', '.join(stopped)}" if stopped else None


@CHECKS.overall("vip.extra", "The other VIPs are where the VIP is")
def extra_vips(view: View) -> Verdict:
    extra = view.cluster.extra_vips
    holders = view.survey.holders(view.cluster.vip.address)
    if not view.answering:
        return skipped("no node could be asked")
    if not extra:
        return passed("there are none")
    if len(holders) != 1:
        return skipped("not exactly one node holds the VIP")
    elsewhere = [f"{vip} is on {_on(view, vip)}" for vip in extra if view.survey.holders(vip.address) != holders]
    if elsewhere:
        return failed(f"{'; '.join(elsewhere)}, {view.cluster.vip} on {holders[0]}", hint="exlb push-config")
    return passed(f"{', '.join(map(str, extra))} on {holders[0]}")


def _on(view: View, vip: Vip) -> str:
    return ", ".join(map(str, view.survey.holders(vip.address))) or "no node"


@CHECKS.per_node("vip.role", "Who holds the VIP")
def role(view: View, node: Node) -> Verdict:
    configured = view.cluster.role(node).lower()
    holds = view.facts(node).holds(view.cluster.vip.address)
    return passed(f"{configured}, holds the VIP" if holds else configured)


@CHECKS.per_node("vip.ping", "The VIP answers ping")
def ping(view: View, node: Node) -> Verdict:
    vip = str(view.cluster.vip)
    if view.facts(node).pings.get(vip):
        return passed("answers")
    return failed(f"{vip} does not answer ping from {node}", hint="exlb exec -- ip -o addr show")


@CHECKS.per_node("vip.request", "An HTTPS request through the VIP reaches an apiserver")
def request(view: View, node: Node) -> Verdict:
    url = vip_url(view.cluster)
    holders = view.survey.holders(view.cluster.vip.address)
    return served(view, url, view.facts(node).replies[url], f"from {node}", holders[0] if len(holders) == 1 else None)

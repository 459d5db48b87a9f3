"""FIREWALL=manage: what is opened when, with what it costs, and what a failure leaves."""

from __future__ import annotations

import json

from tests.cli.conftest import Site

CLOSED = {"chain": {"family": "inet", "table": "f", "name": "in", "hook": "input", "policy": "drop"}}
RULES = "nft " + json.dumps({"nftables": [{"table": {"family": "inet", "name": "f"}}, CLOSED]})
MANAGE = {"FIREWALL": "manage"}


def guard(site: Site, name: str) -> None:
    """Give a node a firewall that lets nothing in, until it has been opened."""
    fake = site.fleet[name]
    fake.answers["firewall"] = (0, RULES)

    def heard(call: str) -> None:
        if call.startswith(("open ", "close ")):
            fake.answers.pop("firewall", None)

    fake.before = heard


def deeds(site: Site) -> list[str]:
    """Return what was done to the nodes, in that order, without what only looks."""
    looks = ("probe", "close", "lock", "unlock", "beat", "stage", "discard")
    said = (entry.split(" ", 1) for entry in site.fleet.journal)
    return [f"{node} {call}" for node, call in said if not call.startswith(looks) or call.startswith("close n")]


def test_openings_alone_are_a_change_and_nothing_else_is_touched(green: Site) -> None:
    green.change(**MANAGE)
    guard(green, "lb2")
    planned = green.exlb("push-config", "--dry-run", "--exit-code", "-o", "json", status=6)
    assert planned.results == {"lb1": "unchanged", "lb2": "pending", "lb3": "unchanged"}
    done = green.exlb("push-config", "-o", "json")
    assert done.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert done.json["nodes"][1]["detail"] == planned.json["nodes"][1]["detail"]
    assert deeds(green) == [
        "lb2 open nftables inet/f/in vrrp from 198.51.100.11",
        "lb2 open nftables inet/f/in vrrp from 198.51.100.13",
        "lb2 open nftables inet/f/in tcp 8443",
    ]


def test_push_after_the_openings_is_one_exec_per_node(green: Site) -> None:
    green.change(**MANAGE)
    guard(green, "lb2")
    green.exlb("push-config")
    for node in green.fleet:
        node.calls.clear()
    assert "no changes" in green.exlb("push-config").said
    assert {node.name: len(node.calls) for node in green.fleet} == {"lb1": 2, "lb2": 2, "lb3": 2}


def test_opening_comes_before_every_change_and_closing_after_all_of_them(green: Site) -> None:
    green.change(**MANAGE, BALANCE="leastconn")
    green.fleet["lb3"].opened.append("nftables inet/f/in tcp 9999")
    guard(green, "lb1")
    green.exlb("push-config")
    kinds = [call.split(" ", 2)[1] for call in deeds(green)]
    assert kinds == ["open"] * 3 + ["activate"] * 3 + ["close"]
    assert green.fleet["lb3"].opened == []


def test_opening_that_fails_stops_the_push_before_anything_is_changed(green: Site) -> None:
    green.change(**MANAGE, BALANCE="leastconn")
    guard(green, "lb2")
    green.fleet["lb2"].failing["firewall"] = "open nftables inet/f/in tcp 8443: Operation not permitted"
    ran = green.exlb("push-config", status=1)
    assert "Operation not permitted" in ran.said
    assert not [each for each in deeds(green) if " activate " in each]


def test_without_manage_a_push_says_what_is_closed_and_opens_nothing(green: Site) -> None:
    green.change(BALANCE="leastconn")
    guard(green, "lb2")
    ran = green.exlb("push-config")
    assert "lb2 does not let in VRRP (protocol 112) from 198.51.100.11" in ran.said
    assert {call.split()[1] for call in deeds(green)} == {"activate"}


def test_verify_fails_where_a_firewall_is_closed_and_not_where_it_is_ignored(green: Site) -> None:
    guard(green, "lb2")
    ran = green.exlb("verify", "-o", "json", status=1)
    failing = {(each["check"], each["node"]) for each in ran.json["verdicts"] if each["status"] == "fail"}
    assert failing == {("firewall.vrrp", "lb2"), ("firewall.ports", "lb2")}
    green.change(FIREWALL="ignore")
    green.exlb("verify")


def test_node_whose_firewall_cannot_be_closed_keeps_the_record_of_what_is_open(green: Site) -> None:
    green.fleet["lb2"].opened.append("nftables inet/f/in tcp 8443")
    green.fleet["lb2"].failing["firewall"] = "Error: COMMAND_FAILED"
    ran = green.exlb("uninstall", "--yes", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "failed", "lb3": "not started"}
    assert "COMMAND_FAILED" in ran.json["nodes"][1]["detail"]
    assert "not yet: disable haproxy, disable keepalived, remove what exlb kept" in ran.json["nodes"][0]["detail"]
    assert green.fleet["lb2"].opened
    assert green.fleet.count("uninstall") == {"lb1": 0, "lb2": 0, "lb3": 0}
    green.fleet["lb2"].failing.clear()
    green.exlb("uninstall", "--yes")
    assert not green.fleet["lb2"].opened
    assert green.fleet.count("uninstall") == {"lb1": 1, "lb2": 1, "lb3": 1}


def test_rules_that_are_not_understood_keep_exlb_on_no_node(green: Site) -> None:
    green.change(FIREWALL="ignore")
    green.fleet["lb2"].answers["firewall"] = (0, "nft garbage")
    green.exlb("uninstall", "--yes")
    assert green.fleet.count("uninstall") == {"lb1": 1, "lb2": 1, "lb3": 1}

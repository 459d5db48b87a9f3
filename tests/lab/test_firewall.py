"""Firewalls on the nodes: what they break is named, and with FIREWALL=manage mended, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.bastion import Bastion

INSTALL = "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq --no-install-recommends"
RUNS = "timeout 30 sh -c 'until firewall-cmd -q --state; do sleep 0.2; done'"
APISERVER_PORT = 6443
RULES = f"""
table inet filter {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname lo accept
        ct state established,related accept
        icmp type echo-request accept
        tcp dport {{ 22, {APISERVER_PORT} }} accept
    }}
}}
"""
# What each firewall is begun with, open for SSH and the apiserver alone, and ended with; and what it has open then.
# firewalld reads /etc/protocols, and its package does not say so.
BEGIN = {
    "firewalld": f"{INSTALL} firewalld nftables netbase && {RUNS} && "
    f"firewall-cmd --permanent --add-port={APISERVER_PORT}/tcp && firewall-cmd --reload",
    "ufw": f"{INSTALL} ufw && ufw allow 22/tcp && ufw allow {APISERVER_PORT}/tcp && ufw --force enable",
    "nftables": f"{INSTALL} nftables && nft -f - <<'end'\n{RULES}\nend",
}
END = {
    "firewalld": "systemctl stop firewalld; apt-get purge -y -qq firewalld",
    "ufw": "ufw --force reset; apt-get purge -y -qq ufw",
    "nftables": "nft flush ruleset",
}
TELL = {
    "firewalld": "for kind in --zone=public --permanent; do firewall-cmd $kind --list-ports; "
    "firewall-cmd $kind --list-rich-rules; done",
    "ufw": "ufw show added; iptables -S ufw-user-input",
    "nftables": "nft list ruleset",
}


@contextmanager
def guarded(bastion: Bastion, program: str, *nodes: str) -> Iterator[None]:
    """Have a firewall with its default rules, and SSH and the apiserver open, on some nodes."""
    try:
        for node in nodes:
            bastion.inside(node, "sh", "-c", BEGIN[program])
        yield
    finally:
        for node in nodes:
            bastion.inside(node, "sh", "-c", END[program], check=False)


def told(bastion: Bastion, program: str, node: str) -> str:
    return bastion.inside(node, "sh", "-c", TELL[program])


def results(bastion: Bastion, env: Path, *words: str, status: int = 0) -> dict[str, str]:
    """Push and return how it ended on every node."""
    ran = bastion.exlb("push-config", "--yes", "-o", "json", *words, env=env, status=status)
    return {row["node"]: row["result"] for row in ran.json["nodes"]}


def failures(bastion: Bastion, env: Path, status: int) -> dict[str, set[str | None]]:
    """Verify and return the nodes, None for all of them, on which each check fails."""
    ran = bastion.exlb("verify", "-o", "json", env=env, status=status)
    found: dict[str, set[str | None]] = {}
    for check, node in bastion.verdicts(ran, "fail"):
        found.setdefault(check, set()).add(node)
    return found


@pytest.mark.slow
def test_split_brain_that_firewalld_causes_is_explained_and_cured(green: Bastion) -> None:
    env = green.environment(VRRP_MODE="multicast")
    green.exlb("push-config", "--yes", env=env)
    with guarded(green, "firewalld", "lb1", "lb2"):
        before = told(green, "firewalld", "lb1")
        green.wait_until(lambda: green.holders() == ["lb1", "lb2"])
        ran = green.exlb("verify", "-o", "json", env=env, status=1)
        (split,) = [each for each in ran.json["verdicts"] if each["check"] == "vip.single-holder"]
        assert split["cause"] == "firewalld on lb1 and lb2 does not let VRRP (protocol 112) in"
        assert failures(green, env, 1)["firewall.vrrp"] == {"lb1", "lb2"}

        env = green.environment(VRRP_MODE="multicast", FIREWALL="manage")
        changed = {"lb1": "changed", "lb2": "changed", "lb3": "unchanged"}
        planned = {node: result.replace("changed", "pending", 1) for node, result in changed.items()}
        planned["lb3"] = "unchanged"
        assert results(green, env, "--dry-run", "--exit-code", status=6) == planned
        assert green.holders() == ["lb1", "lb2"]
        assert results(green, env) == changed
        assert green.holders() == ["lb1"]
        assert failures(green, env, 0) == {}

        sessions = {node: green.sessions(node) for node in green.nodes}
        assert set(results(green, env).values()) == {"unchanged"}
        assert {node: green.sessions(node) for node in green.nodes} == {n: each + 1 for n, each in sessions.items()}

        green.inside("lb1", "firewall-cmd", "--reload")
        assert failures(green, env, 0) == {}

        # What is not needed any more is closed, what was open before is not.
        env = green.environment(FIREWALL="manage", APISERVER_DEST_PORT="9443", KUBE_APISERVER="")
        assert set(results(green, env).values()) == {"changed"}
        assert failures(green, env, 0) == {}
        rules = told(green, "firewalld", "lb1")
        assert rules.count("9443/tcp") == rules.count(f"{APISERVER_PORT}/tcp") == 2
        assert rules.count('source address="198.51.100.12"') == rules.count('source address="198.51.100.13"') == 2
        assert "8443" not in rules
        assert "224.0.0.18" not in rules

        assert set(results(green, green.environment(FIREWALL="manage")).values()) == {"changed"}
        two = green.environment(FIREWALL="manage", NODE_IPS='("${NODE_IPS[@]:0:2}")', NODE_NAMES="(lb1 lb2)")
        results(green, two)
        assert "198.51.100.13" not in told(green, "firewalld", "lb1")
        assert before.split()[0] in told(green, "firewalld", "lb1")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ufw", "nftables"])
def test_other_firewall_is_named_opened_and_closed_again(green: Bastion, program: str) -> None:
    with guarded(green, program, "lb3"):
        before = told(green, program, "lb3")
        env = green.environment()
        assert failures(green, env, 1).keys() >= {"firewall.vrrp", "firewall.ports"}
        env = green.environment(FIREWALL="manage")
        assert results(green, env) == {"lb1": "unchanged", "lb2": "unchanged", "lb3": "changed"}
        assert failures(green, env, 0) == {}
        assert set(results(green, env).values()) == {"unchanged"}
        env = green.environment(FIREWALL="manage", APISERVER_DEST_PORT="9443", KUBE_APISERVER="")
        results(green, env)
        assert failures(green, env, 0) == {}
        rules = told(green, program, "lb3")
        assert "9443" in rules
        assert "8443" not in rules
        assert all(str(word) in rules for word in (22, APISERVER_PORT))
        assert before != rules

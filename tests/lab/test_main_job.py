"""The main job: environment.sh -> install -> push-config -> verify, and what can go wrong with it."""

from __future__ import annotations

from pathlib import Path

from exlb_fab.lab import Lab
from tests.lab.bastion import Bastion


def results(ran: object) -> set[str]:
    """Return the results of the nodes in the JSON of a command."""
    assert isinstance(ran, dict)
    return {row["result"] for row in ran["nodes"]}


def test_nodes_need_no_python(bastion: Bastion) -> None:
    for node in bastion.nodes:
        for name in ("python3", "python", "python2"):
            assert bastion.inside(node, "sh", "-c", f"command -v {name}", check=False) == ""


def test_deploy_takes_fresh_nodes_to_green(bastion: Bastion) -> None:
    ran = bastion.exlb("deploy", "-o", "json")
    assert results(ran.json["install"]) == {"changed"}
    assert results(ran.json["push"]) == {"changed"}
    assert {verdict["status"] for verdict in ran.json["verify"]["verdicts"]} == {"pass"}
    assert bastion.holders() == ["lb1"]
    assert bastion.served()


def test_second_deploy_changes_nothing(green: Bastion) -> None:
    ran = green.exlb("deploy", "-o", "json")
    assert results(ran.json["install"]) == {"unchanged"}
    assert results(ran.json["push"]) == {"unchanged"}


def test_converged_push_is_one_exec_per_node_and_says_no_changes(green: Bastion) -> None:
    before = {node: green.sessions(node) for node in green.nodes}
    ran = green.exlb("push-config")
    assert "no changes" in ran.said
    assert {node: green.sessions(node) - count for node, count in before.items()} == dict.fromkeys(green.nodes, 1)


def test_units_are_enabled_at_boot(green: Bastion) -> None:
    for node in green.nodes:
        assert green.inside(node, "systemctl", "is-enabled", "haproxy", "keepalived") == "enabled\nenabled\n"


def test_hand_edit_is_found_by_verify_and_mended_by_push(green: Bastion) -> None:
    path = "/etc/haproxy/haproxy.cfg"
    rendered = green.inside("lb2", "cat", path)
    green.inside("lb2", "sed", "-i", "s/balance source/balance leastconn/", path)
    ran = green.exlb("verify", "-o", "json", status=1)
    assert green.verdicts(ran, "fail") == {("node.files", "lb2")}
    plan = green.exlb("push-config", "--dry-run", "--exit-code", status=6)
    assert "- balance leastconn" in plan.said
    assert green.inside("lb2", "cat", path) != rendered
    with green.watched() as watch:
        assert "lb2" in green.exlb("push-config").said
    assert watch.seen.failed == 0
    assert green.inside("lb2", "cat", path) == rendered
    green.exlb("verify")


def test_valid_change_of_the_proxy_costs_clients_nothing(green: Bastion) -> None:
    holders = green.holders()
    with green.watched() as watch:
        ran = green.exlb("push-config", "-o", "json", env=green.environment(BALANCE="leastconn"))
    assert results(ran.json) == {"changed"}
    assert watch.seen.requests > 5
    assert watch.seen.failed == 0
    assert green.holders() == holders
    assert "balance leastconn" in green.inside("lb1", "cat", "/etc/haproxy/haproxy.cfg")


def refused(green: Bastion, templates: Path, path: str, words: str) -> None:
    """Assert that a push of broken templates is refused by a node's validator and changes nothing."""
    before = {node: green.inside(node, "sha256sum", path) for node in green.nodes}
    with green.watched() as watch:
        ran = green.exlb("push-config", "--template-dir", str(templates), status=1)
    assert words in ran.said
    assert {node: green.inside(node, "sha256sum", path) for node in green.nodes} == before
    assert watch.seen.failed == 0
    assert all("staging" not in green.inside(node, "ls", "/var/lib/exlb") for node in green.nodes)
    green.exlb("verify")


def test_broken_proxy_template_is_refused_by_the_node(green: Bastion, tmp_path: Path) -> None:
    text = Path("templates/haproxy.cfg.j2").read_text()
    (tmp_path / "haproxy.cfg.j2").write_text(text.replace("    balance ", "    balanze "))
    refused(green, tmp_path, "/etc/haproxy/haproxy.cfg", "unknown keyword 'balanze'")


def test_broken_keepalived_template_is_refused_by_the_node(green: Bastion, tmp_path: Path) -> None:
    text = Path("templates/keepalived.conf.j2").read_text()
    (tmp_path / "keepalived.conf.j2").write_text(text.replace("interface ", "interfacz "))
    refused(green, tmp_path, "/etc/keepalived/keepalived.conf", "interfacz")


def test_interface_that_a_node_does_not_have_is_refused(green: Bastion) -> None:
    ran = green.exlb("push-config", env=green.environment(VIP_IF="eth9"), status=3)
    assert "lb1: VIP_IF=eth9: no such interface" in ran.said
    assert "host0" in ran.said


def test_vip_outside_of_the_network_is_refused(green: Bastion) -> None:
    env = green.environment(MASTER_VIP="198.18.0.100", KUBE_APISERVER="https://198.18.0.100:8443")
    ran = green.exlb("push-config", env=env, status=3)
    assert "MASTER_VIP=198.18.0.100 is outside of the network of host0 (198.51.100.0/24" in ran.said


def test_port_of_another_process_is_refused_and_named(green: Bastion) -> None:
    green.inside("lb2", "systemd-run", "--unit=squatter", "socat", "TCP-LISTEN:9443,fork", "SYSTEM:true")
    try:
        env = green.environment(APISERVER_DEST_PORT="9443", KUBE_APISERVER=f"https://{green.lab.vip}:9443")
        ran = green.exlb("push-config", env=env, status=1)
        assert "lb2: port 9443 is taken by socat" in ran.said
    finally:
        green.inside("lb2", "systemctl", "stop", "squatter")
    assert green.served()


def test_restart_goes_node_by_node_and_ends_green(green: Bastion) -> None:
    ran = green.exlb("restart", "haproxy", "-o", "json")
    assert results(ran.json) == {"changed"}
    green.wait_until(green.served)
    green.exlb("verify")


def test_exec_prints_per_node_and_exits_with_the_worst_status(green: Bastion) -> None:
    ran = green.exlb("exec", "--", "hostname")
    assert [line for line in ran.stdout.splitlines() if line] == [
        ">>> lb1", "lb1", ">>> lb2", "lb2", ">>> lb3", "lb3",
    ]  # fmt: skip
    ran = green.exlb("exec", "--", "sh", "-c", 'test "$(hostname)" != lb2 || exit 7', status=7)
    assert ">>> lb2 (status 7)" in ran.said


def test_no_apiserver_yet_is_green_when_expected(green: Bastion, deployed_lab: Lab) -> None:
    for node in green.nodes:
        deployed_lab.apiserver(node, "off")
    green.wait_until(lambda: not green.served())
    green.wait_until(lambda: green.exlb("verify", "--expect-no-apiserver", status=None).status == 0)
    ran = green.exlb("verify", status=1)
    assert "no node sees any backend up" in ran.said


def test_push_to_a_dead_port_stops_at_the_first_node(green: Bastion) -> None:
    env = green.environment(APISERVER_SRC_PORT="6555")
    with green.watched() as watch:
        ran = green.exlb("push-config", "-o", "json", env=env, status=1)
    rows = {row["node"]: row for row in ran.json["nodes"]}
    assert {node: row["result"] for node, row in rows.items()} == {
        "lb1": "not started",
        "lb2": "failed",
        "lb3": "not started",
    }
    assert "failed gate-proxy" in rows["lb2"]["detail"]
    assert "no server is up" in rows["lb2"]["detail"]
    assert watch.seen.failed == 0
    # It is back on the bytes that it had, and serves.
    green.exlb("verify")


def test_keepalived_that_runs_an_older_file_is_reloaded(green: Bastion) -> None:
    green.inside("lb2", "touch", "/etc/keepalived/keepalived.conf")
    with green.watched() as watch:
        ran = green.exlb("push-config")
    assert "its file is newer than what it runs" in ran.said
    assert watch.seen.failed == 0
    assert "no changes" in green.exlb("push-config").said


def test_vrid_changes_on_all_nodes_or_on_none(green: Bastion) -> None:
    env = green.environment(ROUTER_ID="77")
    before = green.inside("lb2", "sha256sum", "/etc/keepalived/keepalived.conf")
    ran = green.exlb("push-config", "--nodes", "lb2", env=env, status=1)
    assert "lb1, lb3 would not hear lb2 any more" in ran.said
    assert green.inside("lb2", "sha256sum", "/etc/keepalived/keepalived.conf") == before
    with green.watched() as watch:
        ran = green.exlb("push-config", "--yes", env=env)
    assert "clients lose 198.51.100.100 for" in ran.said
    assert watch.seen.most_holders == 1
    green.exlb("verify", env=env)


def test_compatible_change_of_keepalived_moves_nothing(green: Bastion) -> None:
    (holder,) = green.holders()
    with green.watched() as watch:
        green.exlb("push-config", env=green.environment(CHECK_FALL="3"))
    assert watch.seen.failed == 0
    assert green.holders() == [holder]

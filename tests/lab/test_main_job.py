"""The main job: environment.sh -> install -> push-config -> verify, and what can go wrong with it."""

from __future__ import annotations

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


def test_keepalived_that_runs_an_older_file_is_reloaded(green: Bastion) -> None:
    green.inside("lb2", "touch", "/etc/keepalived/keepalived.conf")
    with green.watched() as watch:
        ran = green.exlb("push-config")
    assert "its file is newer than what it runs" in ran.said
    assert watch.seen.failed == 0
    assert "no changes" in green.exlb("push-config").said


def test_vrid_does_not_change_on_some_nodes_only(green: Bastion) -> None:
    env = green.environment(ROUTER_ID="77")
    before = green.inside("lb2", "sha256sum", "/etc/keepalived/keepalived.conf")
    ran = green.exlb("push-config", "--nodes", "lb2", env=env, status=1)
    assert "lb1, lb3 would not hear lb2 any more" in ran.said
    assert green.inside("lb2", "sha256sum", "/etc/keepalived/keepalived.conf") == before

"""verify, exec, render and config: commands that only look."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from exlb_fab.facts import Reply
from exlb_fab.remote import Completed
from exlb_fab.system import drop_in_path
from tests.certificates import certificate
from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, PROXY, VIP, mac
from tests.ran import Ran


def found(ran: Ran, status: str) -> set[tuple[str, str | None]]:
    """Return which checks of which nodes have a status."""
    return {(row["check"], row["node"]) for row in ran.json["verdicts"] if row["status"] == status}


def test_verify_is_red_when_all_proxies_are_dead_though_the_vip_answers_ping(green: Site) -> None:
    for node in green.fleet:
        node.running = None
        node.units["haproxy"].active = "failed"
    ran = green.exlb("verify", "-o", "json", status=1)
    assert {("vip.request", name) for name in green.fleet.nodes} <= found(ran, "fail")
    assert {("vip.ping", name) for name in green.fleet.nodes} <= found(ran, "pass")
    assert "the end of haproxy's journal" in ran.said
    assert "RED" in green.exlb("verify", status=1).stdout


def test_verify_finds_a_hand_edited_file(green: Site) -> None:
    green.fleet["lb2"].files[PROXY.path].text += "# edited\n"
    ran = green.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("node.files", "lb2")}


def test_verify_with_only_an_unreachable_node_exits_4_and_names_it(green: Site) -> None:
    green.fleet.cut("lb3")
    ran = green.exlb("verify", "-o", "json", status=4)
    assert found(ran, "fail") == {("node.ssh", "lb3")}


def test_verify_with_another_finding_beside_an_unreachable_node_exits_1(green: Site) -> None:
    green.fleet.cut("lb3")
    green.fleet["lb2"].units["haproxy"].file_state = "disabled"
    green.exlb("verify", status=1)


def test_verify_names_the_variable_for_apiservers_that_want_a_login(green: Site) -> None:
    for node in green.fleet:
        node.backends = "401"
    ran = green.exlb("verify", status=1)
    assert "HEALTH_CHECK=tcp" in ran.said


def test_verify_accepts_that_no_apiserver_lives_yet_only_when_told(green: Site) -> None:
    for node in green.fleet:
        node.backends = "DOWN"
    assert "no node sees any backend up" in green.exlb("verify", status=1).said
    assert "no apiserver is expected yet" in green.exlb("verify", "--expect-no-apiserver").said


def test_verify_of_chosen_nodes_says_nothing_of_the_others(green: Site) -> None:
    green.fleet["lb2"].files[PROXY.path].text += "# edited\n"
    ran = green.exlb("verify", "--nodes", "lb1", "-o", "json")
    assert {row["node"] for row in ran.json["verdicts"]} == {"lb1", None}


def test_verify_is_green_where_the_bastion_has_no_way_to_the_vip(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(green.fleet, "request", lambda url: None)
    ran = green.exlb("verify", "-o", "json")
    assert found(ran, "skip") == {("vip.bastion", None)}
    assert ran.json["green"]


def test_verify_is_red_where_the_bastion_reaches_the_holder_and_not_the_vip(
    green: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "https://198.51.100.11:8443/readyz"
    monkeypatch.setattr(
        green.fleet, "request", lambda url: Reply(200, "", accepted=True, body="ok") if url == own else None
    )
    ran = green.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("vip.bastion", None)}
    assert f"the bastion reaches lb1, and not {VIP}" in ran.stdout


def test_bastion_asks_nothing_past_the_vips_where_the_proxy_is_bound_to_them_alone(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = site(BIND="vip").deploy(), list[str]()
    monkeypatch.setattr(made.fleet, "request", asked.append)
    ran = made.exlb("verify", "-o", "json")
    assert found(ran, "skip") == {("vip.bastion", None)}
    assert asked == [f"https://{VIP}:8443/readyz"]


def test_verify_asks_through_every_vip(site: Callable[..., Site]) -> None:
    made, second = site(EXTRA_VIPS="(198.51.100.101)").deploy(), "198.51.100.101"
    made.fleet["lb3"].answers[f"request https://{second}:8443/readyz"] = (7, "curl: (7) refused\n000 0\nbody ")
    made.fleet["lb2"].answers[f"neighbours {second}"] = (0, f"{second} dev eth0 lladdr 02:00:00:00:66:66 REACHABLE")
    ran = made.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("vip.request", "lb3"), ("vip.mac", "lb2")}
    assert found(ran, "warn") == {("certificate.names", None)}


def test_verify_is_red_where_something_that_is_no_apiserver_answers(green: Site) -> None:
    own = "https://198.51.100.12:8443/readyz"
    green.fleet["lb2"].answers[f"request {own}"] = (0, "404 1\nbody <html>")
    ran = green.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("backend.request", "lb2")}


def test_verify_is_red_where_the_bastion_alone_is_not_served(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Reply(None, "Connection refused", accepted=False)
    monkeypatch.setattr(green.fleet, "request", lambda url: refused)
    ran = green.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("vip.bastion", None)}


def test_verify_finds_another_host_with_the_vip_where_no_node_can_ask(
    green: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = frozenset({mac(green.fleet["lb1"].node), "02:00:00:00:66:66"})
    monkeypatch.setattr(green.fleet, "arp_answers", lambda address: both)
    ran = green.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("vip.bastion", None)}
    assert f"02:00:00:00:66:66, which is no node's, answers the bastion for {VIP} as well as lb1" in ran.stdout


def test_verify_finds_a_node_that_sends_to_another_one_than_the_holder(green: Site) -> None:
    entry = f"{VIP} dev eth0 lladdr {mac(green.fleet['lb2'].node)} REACHABLE"
    green.fleet["lb3"].answers[f"neighbours {VIP}"] = (0, entry)
    ran = green.exlb("verify", "-o", "json", status=1)
    assert found(ran, "fail") == {("vip.mac", "lb3")}


def test_verify_warns_of_a_certificate_without_the_vip(green: Site) -> None:
    green.fleet["lb2"].answers["certificate 198.51.100.12:6443"] = (0, certificate("198.51.100.12"))
    ran = green.exlb("verify", "-o", "json")
    assert found(ran, "warn") == {("certificate.names", None)}


def test_verify_asks_every_other_listener_from_every_node_by_both_ways(site: Callable[..., Site]) -> None:
    values = {"INGRESS_NODE_IPS": "(198.51.100.31)", "INGRESS_HTTP_NODEPORT": "30080"}
    made = site(**values, EXTRA_LISTENERS="('db 5432 198.51.100.41:5432')").deploy()
    refused = (1, "2026/11/21 15:00:00 socat[7] E connect(5, AF=2, 16): Connection refused")
    made.fleet["lb3"].answers[f"request tcp://{VIP}:5432"] = refused
    made.fleet["lb2"].answers["request http://198.51.100.12:80/"] = (7, "curl: (7) Failed to connect\n000 0")
    ran = made.exlb("verify", "-o", "json", status=1)
    assert {("listener.vip", "lb3"), ("listener.own", "lb2")} == {
        (check, node) for check, node in found(ran, "fail") if check.startswith("listener.")
    }


def test_verify_changes_nothing_with_one_exec_per_node(green: Site) -> None:
    before = green.fleet.state
    green.exlb("verify")
    assert green.fleet.state == before
    assert {node.name: len(node.calls) for node in green.fleet} == {"lb1": 2, "lb2": 2, "lb3": 2}


def test_exec_prints_per_node_in_the_order_of_the_file(green: Site) -> None:
    for node in green.fleet:
        node.commands["hostname", "-f"] = Completed(0, f"{node.name}.example.org\n", "")
    ran = green.exlb("exec", "--", "hostname", "-f")
    assert ran.stdout.splitlines() == [
        ">>> lb1",
        "lb1.example.org",
        ">>> lb2",
        "lb2.example.org",
        ">>> lb3",
        "lb3.example.org",
    ]


def test_exec_exits_with_the_worst_status(green: Site) -> None:
    for node, status in zip(green.fleet, (0, 7, 3), strict=True):
        node.commands[("true",)] = Completed(status, "", "words\n")
    ran = green.exlb("exec", "--", "true", status=7)
    assert ">>> lb2 (status 7)" in ran.said


def test_exec_passes_sudo_on_only_when_asked(green: Site) -> None:
    for node in green.fleet:
        node.commands[("id",)] = Completed(0, "", "")
    green.exlb("exec", "--", "id")
    green.exlb("exec", "--sudo", "--", "id")
    assert [call for call in green.fleet["lb1"].calls if call != "close"] == ["exec id", "exec sudo id"]


def test_exec_goes_on_without_an_unreachable_node_and_names_it(green: Site) -> None:
    green.fleet.cut("lb2")
    for node in green.fleet:
        node.commands[("true",)] = Completed(0, "", "")
    ran = green.exlb("exec", "-o", "json", "--", "true", status=4)
    assert [row["status"] for row in ran.json["nodes"]] == [0, None, 0]
    assert ran.json["nodes"][1]["error"] == "cannot connect: No route to host"
    green.fleet["lb3"].commands[("true",)] = Completed(3, "", "")
    green.exlb("exec", "--", "true", status=3)


def test_render_shows_the_files_without_a_connection(fresh: Site) -> None:
    for name in fresh.fleet.nodes:
        fresh.fleet.cut(name)
    ran = fresh.exlb("render", "--nodes", "lb2")
    assert ">>> lb2:/etc/haproxy/haproxy.cfg (mode 0644)" in ran.stdout
    assert "\n    router_id lb-backup-lb2\n" in ran.stdout
    assert "lb1:" not in ran.stdout


def test_render_writes_the_files_with_their_modes(green: Site, tmp_path: Path) -> None:
    green.change(STATS_PASSWORD="geheim")
    out = tmp_path / "out"
    ran = green.exlb("render", "--out", str(out), "-o", "json")
    modes = {str(path.relative_to(out)): stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    wanted = {
        PROXY.path: 0o600,
        KEEPALIVED_PATH: 0o644,
        drop_in_path("haproxy"): 0o644,
        drop_in_path("keepalived"): 0o644,
    }
    assert modes == {f"{node}{path}": mode for node in green.fleet.nodes for path, mode in wanted.items()}
    assert "geheim" in (out / "lb1" / PROXY.path.lstrip("/")).read_text()
    assert {row["written"] for row in ran.json["files"]} == {str(out / path) for path in modes}


def test_render_closes_a_readable_file_that_gets_a_secret(green: Site, tmp_path: Path) -> None:
    green.change(STATS_PASSWORD="geheim")
    target = tmp_path / "out" / "lb1" / PROXY.path.lstrip("/")
    target.parent.mkdir(parents=True)
    target.write_text("old")
    target.chmod(0o644)
    green.exlb("render", "--out", str(tmp_path / "out"))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_render_names_the_directory_that_it_cannot_write(green: Site, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    ran = green.exlb("render", "--out", str(tmp_path / "out"), status=1)
    assert f"cannot write {tmp_path}/out/lb1" in ran.said


def test_rendered_files_are_the_ones_that_a_push_brings(green: Site, tmp_path: Path) -> None:
    green.exlb("render", "--out", str(tmp_path / "out"))
    for node in green.fleet:
        for path, file in node.files.items():
            assert (tmp_path / "out" / node.name / path.lstrip("/")).read_text() == file.text


def test_config_tells_where_each_value_comes_from(green: Site) -> None:
    rows = {row["name"]: row for row in green.exlb("config", "-o", "json").json["settings"]}
    assert rows["MASTER_VIP"]["source"] == f"{green.env}:4"
    assert (rows["ROUTER_ID"]["value"], rows["ROUTER_ID"]["source"]) == ("68", "default")
    assert not any(node.calls for node in green.fleet)

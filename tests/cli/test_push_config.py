"""push-config and restart: the plan, the order, the stop at the first failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exlb_fab.errors import HostKeyError
from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, PROXY

CHANGE = {"BALANCE": "leastconn"}


def activated(site: Site) -> list[str]:
    """Return the nodes whose files became active, in that order."""
    return [entry.split()[0] for entry in site.fleet.journal if " activate " in entry]


def test_converged_push_is_one_exec_per_node_and_says_no_changes(green: Site) -> None:
    ran = green.exlb("push-config")
    assert {node.name: len(node.calls) for node in green.fleet} == {"lb1": 2, "lb2": 2, "lb3": 2}
    assert all(node.calls[0].startswith("probe ") and node.calls[1] == "close" for node in green.fleet)
    assert "no changes" in ran.said


def test_dry_run_shows_the_change_and_touches_nothing(green: Site) -> None:
    before = green.fleet.state
    green.change(**CHANGE)
    ran = green.exlb("push-config", "--dry-run")
    assert "- balance source" in ran.said
    assert "+ balance leastconn" in ran.said
    assert "dry run: nothing was touched" in ran.said
    assert green.fleet.state == before
    assert {call.split()[0] for node in green.fleet for call in node.calls} == {"probe", "close"}


def test_dry_run_with_exit_code_tells_pending_changes_from_none(green: Site) -> None:
    green.exlb("push-config", "--dry-run", "--exit-code")
    green.change(**CHANGE)
    green.exlb("push-config", "--dry-run", "--exit-code", status=6)
    green.exlb("push-config", "--dry-run")


def test_dry_run_tells_the_plan_that_the_push_carries_out(green: Site) -> None:
    green.change(**CHANGE)
    planned = green.exlb("push-config", "--dry-run", "-o", "json")
    assert planned.results == {"lb1": "pending", "lb2": "pending", "lb3": "pending"}
    done = green.exlb("push-config", "-o", "json")
    assert done.results == {"lb1": "changed", "lb2": "changed", "lb3": "changed"}
    for key in ("detail", "node"):
        assert [row[key] for row in planned.json["nodes"]] == [row[key] for row in done.json["nodes"]]
    assert planned.json["diffs"] == done.json["diffs"]


def test_holder_is_changed_last_whoever_it_is(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    assert activated(green) == ["lb2", "lb3", "lb1"]
    green.fleet["lb1"].units["keepalived"].active = "inactive"
    green.fleet.journal.clear()
    green.change(BALANCE="roundrobin")
    green.exlb("push-config")
    assert activated(green) == ["lb1", "lb3", "lb2"]


def test_every_node_has_validated_before_the_first_is_changed(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    steps = [entry.split()[1] for entry in green.fleet.journal]
    assert steps.count("stage") == 3
    assert max(place for place, step in enumerate(steps) if step == "stage") < steps.index("activate")


def test_only_the_unit_whose_file_changed_is_reloaded(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    green.change(**CHANGE, CHECK_INTERVAL="3")
    green.exlb("push-config")
    calls = [call for call in green.fleet["lb2"].calls if call.startswith("activate")]
    assert [call.split()[3:] for call in calls] == [["reload", "none"], ["none", "reload"]]


def test_masked_unit_is_refused_with_the_command_that_frees_it(green: Site) -> None:
    green.fleet["lb2"].units["keepalived"].load = "masked"
    for command in ("push-config", "restart", "install"):
        assert "exlb exec --sudo -- systemctl unmask keepalived" in green.exlb(command, status=1).said


def test_first_failure_stops_the_roll_out(green: Site) -> None:
    green.change(**CHANGE)
    green.fleet["lb3"].failing["activate"] = "after 15 s haproxy runs another configuration"
    before = {name: green.fleet[name].state for name in ("lb1", "lb3")}
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "changed", "lb3": "failed"}
    assert "after 15 s haproxy runs another configuration" in ran.said
    assert {name: green.fleet[name].state for name in ("lb1", "lb3")} == before
    assert green.fleet.count("discard") == {"lb1": 1, "lb2": 0, "lb3": 1}


def test_file_that_one_node_refuses_is_activated_on_none(green: Site) -> None:
    green.change(**CHANGE)
    green.fleet["lb3"].failing["stage"] = "[ALERT] config : unknown keyword 'balanze'"
    before = green.fleet.state
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "not started", "lb3": "failed"}
    assert "unknown keyword 'balanze'" in ran.said
    assert green.fleet.state == before
    assert green.fleet.count("discard") == {"lb1": 1, "lb2": 1, "lb3": 1}


def test_push_refuses_before_its_first_change_when_a_node_is_unreachable(green: Site) -> None:
    green.fleet.cut("lb2")
    green.change(**CHANGE)
    before = green.fleet.state
    ran = green.exlb("push-config", status=4)
    assert "lb2: cannot connect: No route to host" in ran.said
    assert "--skip-unreachable" in ran.said
    assert ran.stdout == ""
    assert green.fleet.state == before


def test_push_goes_on_without_a_node_when_told_to(green: Site) -> None:
    green.fleet.cut("lb3")
    green.change(**CHANGE)
    ran = green.exlb("push-config", "--skip-unreachable", "-o", "json", status=4)
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "unreachable"}


def test_dry_run_without_a_node_is_no_clean_bill(green: Site) -> None:
    green.fleet.cut("lb3")
    ran = green.exlb("push-config", "--dry-run", "--exit-code", "--skip-unreachable", "-o", "json", status=4)
    assert ran.results == {"lb1": "unchanged", "lb2": "unchanged", "lb3": "unreachable"}


def test_node_that_answers_only_at_the_second_look_is_left_out_and_named(green: Site) -> None:
    green.change(BALANCE="leastconn")
    green.fleet["lb2"].answers["addresses"] = (0, "garbage")
    green.fleet["lb1"].before = lambda call: green.fleet["lb2"].answers.clear() if call.startswith("lock") else None
    ran = green.exlb("push-config", "--skip-unreachable", "-o", "json", status=1)
    assert ran.results == {"lb1": "changed", "lb2": "failed", "lb3": "changed"}
    assert green.fleet.count("activate")["lb2"] == 0


def test_unreachable_node_that_was_not_chosen_is_no_obstacle(green: Site) -> None:
    green.fleet.cut("lb3")
    green.change(**CHANGE)
    ran = green.exlb("push-config", "--nodes", "lb[12]", "-o", "json")
    assert ran.results == {"lb1": "changed", "lb2": "changed"}


def test_wrong_host_key_keeps_its_own_hint(green: Site) -> None:
    green.fleet["lb2"].unreachable = HostKeyError("lb2: host key differs", hint="ssh-keygen -R 198.51.100.12")
    ran = green.exlb("push-config", status=4)
    assert "ssh-keygen -R 198.51.100.12" in ran.said


def test_hand_edit_is_shown_and_mended(green: Site) -> None:
    file = green.fleet["lb2"].files[PROXY.path]
    rendered = file.text
    file.text = rendered.replace("balance source", "balance leastconn")
    ran = green.exlb("push-config", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert "-    balance leastconn\n+    balance source" in ran.json["diffs"][0]["diff"]
    assert green.fleet["lb2"].files[PROXY.path].text == rendered


def test_wrong_mode_alone_is_mended_without_a_diff(green: Site) -> None:
    green.fleet["lb2"].files[KEEPALIVED_PATH].mode = 0o666
    ran = green.exlb("push-config", "-o", "json")
    assert [(diff["reason"], diff["diff"]) for diff in ran.json["diffs"]] == [("mode or owner", "")]
    assert green.fleet["lb2"].files[KEEPALIVED_PATH].mode == 0o644


def test_node_without_the_programs_is_sent_to_install(fresh: Site) -> None:
    ran = fresh.exlb("push-config", status=1)
    assert "lb1: not installed: haproxy, keepalived, killall, curl, socat" in ran.said
    assert "exlb install" in ran.said


def test_node_that_answers_nonsense_is_named(green: Site) -> None:
    green.fleet["lb2"].answers["addresses"] = (0, "what?")
    ran = green.exlb("push-config", status=1)
    assert "lb2: `ip -o addr show` said 'what?'" in ran.said


def test_broken_template_is_named_before_a_node_is_contacted(green: Site, tmp_path: Path) -> None:
    (tmp_path / "haproxy.cfg.j2").write_text("global\n{% if %}\n")
    ran = green.exlb("push-config", "--template-dir", str(tmp_path), status=1)
    assert "haproxy.cfg.j2:2:" in ran.said
    assert not any(node.calls for node in green.fleet)


def test_template_without_a_last_newline_is_pushed_whole(green: Site, tmp_path: Path) -> None:
    packaged = Path("templates/haproxy.cfg.j2").read_text()
    (tmp_path / "haproxy.cfg.j2").write_text(packaged + "# mine")
    green.exlb("push-config", "--template-dir", str(tmp_path))
    assert green.fleet["lb1"].files[PROXY.path].text.endswith("# mine\n")
    assert "no changes" in green.exlb("push-config", "--template-dir", str(tmp_path)).said


def test_node_that_cannot_validate_is_pushed_to_only_when_told(green: Site) -> None:
    green.change(**CHANGE)
    green.fleet["lb2"].keepalived_version = "Keepalived v1.3.5 (03/19,2017)"
    ran = green.exlb("push-config", status=1)
    assert "lb2: keepalived 1.3.5 cannot validate a configuration" in ran.said
    assert "--unvalidated pushes all the same" in ran.said
    green.exlb("push-config", "--unvalidated")
    assert green.fleet.count("stage unvalidated") == {"lb1": 1, "lb2": 1, "lb3": 1}
    green.change()
    green.exlb("push-config", "--nodes", "lb1")
    assert green.fleet["lb1"].calls.count("stage") == 1
    green.exlb("rollback", "--to", "2", status=1)
    green.exlb("rollback", "--to", "2", "--unvalidated")
    assert green.fleet["lb1"].calls.count("prepare 0002 unvalidated") == 1


def test_stopped_unit_is_started(green: Site) -> None:
    green.fleet["lb3"].units["haproxy"].active = "failed"
    green.fleet["lb3"].running = None
    ran = green.exlb("push-config", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "unchanged", "lb3": "changed"}
    assert "start haproxy (it is failed)" in ran.said
    assert green.fleet["lb3"].running is not None


def test_restart_goes_node_by_node_with_the_holder_last(green: Site) -> None:
    ran = green.exlb("restart", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    entries = [entry for entry in green.fleet.journal if " units " in entry]
    assert entries == [f"{name} units restart restart" for name in ("lb2", "lb3", "lb1")]


@pytest.mark.parametrize(("unit", "actions"), [("haproxy", "restart none"), ("keepalived", "none restart")])
def test_restart_of_one_unit_leaves_the_other_alone(green: Site, unit: str, actions: str) -> None:
    green.exlb("restart", unit)
    assert {call for node in green.fleet for call in node.calls if "units" in call} == {f"units {actions}"}


def test_restart_stops_at_the_first_failure(green: Site) -> None:
    green.fleet["lb2"].failing["units"] = "Job for haproxy.service failed."
    ran = green.exlb("restart", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "failed", "lb3": "not started"}


def test_restart_of_something_else_is_a_usage_error(green: Site) -> None:
    ran = green.exlb("restart", "sshd", status=2)
    assert "exlb restart haproxy | keepalived" in ran.said


def test_restart_refuses_when_a_node_is_unreachable(green: Site) -> None:
    green.fleet.cut("lb1")
    ran = green.exlb("restart", status=4)
    assert "nothing was changed on any node" in ran.said
    assert not any("units" in entry for entry in green.fleet.journal)


def test_single_node_is_deployed_pushed_and_restarted(site: Callable[..., Site]) -> None:
    alone = site(nodes=1).deploy()
    alone.change(**CHANGE)
    alone.exlb("push-config")
    alone.exlb("restart")
    assert "GREEN" in alone.exlb("verify").stdout

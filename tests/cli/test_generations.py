"""Generations: what a push leaves behind, and rollback, history and diff, which live by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from exlb_fab import system
from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, PROXY, Clock, FakeFile, cluster

CHANGE = {"BALANCE": "leastconn"}
OTHER = {"BALANCE": "roundrobin"}
ORIGINAL = FakeFile("# what the package brought\nlisten web\n  bind :80\n", 0o640, "0:107")


def kept(site: Site) -> dict[str, list[int]]:
    return {node.name: sorted(node.generations) for node in site.fleet}


def current(site: Site) -> list[int | None]:
    return [node.current for node in site.fleet]


def texts(site: Site, path: str = PROXY.path) -> list[str]:
    return [node.files[path].text for node in site.fleet]


def activated(site: Site) -> list[str]:
    """Return the nodes whose files became active, in that order."""
    return [entry.split()[0] for entry in site.fleet.journal if " activate " in entry]


@pytest.fixture
def adopted(site: Callable[..., Site]) -> Site:
    """Nodes that had a proxy before exlb came, and no keepalived.conf."""
    made = site()
    made.exlb("install")
    for node in made.fleet:
        node.files[PROXY.path] = FakeFile(ORIGINAL.text, ORIGINAL.mode, ORIGINAL.owner)
        node.act("haproxy", "start")
    made.exlb("push-config")
    made.fleet.journal.clear()
    return made


# Numbers


def test_first_push_keeps_what_was_there_as_0_and_makes_1(adopted: Site) -> None:
    assert kept(adopted) == {"lb1": [0, 1], "lb2": [0, 1], "lb3": [0, 1]}
    assert current(adopted) == [1, 1, 1]
    for node in adopted.fleet:
        of_system = dict.fromkeys(system.paths(cluster()), None)
        assert node.generations[0].files == {PROXY.path: ORIGINAL, KEEPALIVED_PATH: None, **of_system}
        assert node.generations[1].files == {**node.active.files, **of_system}


def test_every_push_makes_the_next_number_the_same_on_all_nodes(green: Site) -> None:
    for number, values in enumerate((CHANGE, OTHER), 2):
        green.change(**values)
        green.exlb("push-config")
        assert current(green) == [number] * 3


def test_push_to_some_nodes_leaves_its_number_out_on_the_others(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config", "--nodes", "lb2")
    green.exlb("push-config")
    assert kept(green) == {"lb1": [0, 1, 3], "lb2": [0, 1, 2], "lb3": [0, 1, 3]}
    green.change(**OTHER)
    green.exlb("push-config")
    assert current(green) == [4, 4, 4]


def test_hand_edit_gets_a_number_of_its_own_before_it_is_overwritten(green: Site) -> None:
    edited = FakeFile("# mine\n", 0o600, "1000:1000")
    green.fleet["lb2"].files[PROXY.path] = edited
    green.exlb("push-config")
    assert kept(green) == {"lb1": [0, 1], "lb2": [0, 1, 2, 3], "lb3": [0, 1]}
    assert green.fleet["lb2"].generations[2].files[PROXY.path] == edited
    assert green.fleet["lb2"].generations[2].meta["what"] == "found on the node"
    green.change(**CHANGE)
    green.exlb("push-config")
    assert current(green) == [4, 4, 4]


def test_push_onto_edited_and_other_nodes_has_one_number(green: Site) -> None:
    green.fleet["lb2"].files[PROXY.path].text += "# mine\n"
    green.change(**CHANGE)
    green.exlb("push-config")
    assert kept(green) == {"lb1": [0, 1, 3], "lb2": [0, 1, 2, 3], "lb3": [0, 1, 3]}


def test_push_that_fails_everywhere_leaves_no_number(green: Site) -> None:
    green.change(**CHANGE)
    green.fleet["lb1"].failing["stage"] = "no"
    green.exlb("push-config", status=1)
    assert kept(green) == {"lb1": [0, 1], "lb2": [0, 1], "lb3": [0, 1]}


# Rollback


def test_rollback_brings_back_what_was_before_the_newest(green: Site) -> None:
    before = texts(green)
    green.change(**CHANGE)
    green.exlb("push-config")
    assert texts(green) != before
    ran = green.exlb("rollback", "-o", "json")
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "changed"}
    assert (ran.json["to"], current(green), texts(green)) == (1, [1, 1, 1], before)


def test_rollback_goes_the_way_of_a_push(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    green.fleet.journal.clear()
    ran = green.exlb("rollback")
    assert activated(green) == ["lb2", "lb3", "lb1"]
    assert "generation 1 is active again" in ran.said
    assert "-    balance leastconn" in ran.stderr
    assert "+    balance source" in ran.stderr
    assert green.fleet.most_holders == 1


def test_second_rollback_changes_nothing_and_says_so(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    for words in ((), ("--to", "1")):
        green.exlb("rollback", *words)
        before = green.fleet.state
        assert "no changes" in green.exlb("rollback", *words).said
        assert green.fleet.state == before


def test_rollback_after_a_rollback_and_a_push_does_not_bring_back_what_was_left(green: Site) -> None:
    first = texts(green)
    green.change(**CHANGE)
    green.exlb("push-config")
    green.exlb("rollback")
    green.change(**OTHER)
    green.exlb("push-config")
    assert current(green) == [3, 3, 3]
    green.exlb("rollback")
    assert (current(green), texts(green)) == ([1, 1, 1], first)


def test_rollback_brings_a_hand_edit_back_where_there_was_one(green: Site) -> None:
    edited = green.fleet["lb2"].files[PROXY.path].text = texts(green)[1] + "# mine\n"
    plain = texts(green)[0]
    green.change(**CHANGE)
    green.exlb("push-config")
    green.exlb("rollback")
    assert texts(green) == [plain, edited, plain]
    assert current(green) == [1, 2, 1]


def test_rollback_leaves_nodes_alone_that_the_newest_did_not_reach(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config", "--nodes", "lb2")
    ran = green.exlb("rollback", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert current(green) == [1, 1, 1]


def test_rollback_after_a_failed_push_takes_back_the_nodes_that_it_had_reached(green: Site) -> None:
    before = texts(green)
    green.change(**CHANGE)
    green.fleet["lb3"].failing["activate"] = "no"
    green.exlb("push-config", status=1)
    del green.fleet["lb3"].failing["activate"]
    ran = green.exlb("rollback", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert texts(green) == before


def test_rollback_to_a_number_is_the_newest_of_each_node_that_is_not_newer(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config", "--nodes", "lb2")
    green.change(**OTHER)
    green.exlb("push-config")
    green.exlb("rollback", "--to", "2")
    assert current(green) == [1, 2, 1]
    assert ["leastconn" in text for text in texts(green)] == [False, True, False]


def test_generation_that_was_left_can_be_gone_back_to(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    green.exlb("rollback")
    green.exlb("rollback", "--to", "2")
    assert current(green) == [2, 2, 2]
    assert all("leastconn" in text for text in texts(green))


def test_rollback_to_0_brings_the_original_back_byte_for_byte_and_stops_what_has_no_file(adopted: Site) -> None:
    ran = adopted.exlb("rollback", "--to", "0", "--yes", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    for node in adopted.fleet:
        assert node.files == {PROXY.path: ORIGINAL}
        assert (node.units["haproxy"].active, node.units["keepalived"].active) == ("active", "inactive")
        assert node.running == ORIGINAL.text
    assert current(adopted) == [0, 0, 0]
    assert activated(adopted) == ["lb2", "lb3", "lb1"]


def test_rollback_to_0_does_not_start_what_did_not_run_on_its_file_before_exlb(site: Callable[..., Site]) -> None:
    sample = FakeFile("vrrp_instance VI_1 {\n    interface eth9\n    priority 1\n}\n")
    fresh = site()
    fresh.exlb("install")
    for node in fresh.fleet:
        node.files[KEEPALIVED_PATH] = FakeFile(sample.text)
    fresh.exlb("push-config")
    words = "".join(fresh.fleet.journal)
    fresh.exlb("rollback", "--to", "0", "--yes")
    assert "idle-keepalived" in "".join(fresh.fleet.journal).removeprefix(words)
    for node in fresh.fleet:
        assert node.files == {KEEPALIVED_PATH: sample}
        assert {unit.active for unit in node.units.values()} == {"inactive"}


def test_rollback_to_0_says_that_the_vip_goes_and_asks(adopted: Site) -> None:
    before = adopted.fleet.state
    ran = adopted.exlb("rollback", "--to", "0", status=2)
    assert "keepalived stops on all nodes: nobody will hold 198.51.100.100" in ran.stderr
    assert "--yes goes on without asking" in ran.stderr
    assert adopted.fleet.state == before


def test_rollback_to_0_on_one_node_leaves_the_vip_to_the_others(adopted: Site) -> None:
    ran = adopted.exlb("rollback", "--to", "0", "--nodes", "lb1", status=2)
    assert "nobody will listen on port 8443 of lb1 any more" in ran.said
    adopted.exlb("rollback", "--to", "0", "--nodes", "lb1", "--yes")
    assert current(adopted) == [0, 1, 1]
    assert [node.name for node in adopted.fleet.holders] == ["lb2"]


def test_push_after_a_rollback_to_0_deploys_again(adopted: Site) -> None:
    adopted.exlb("rollback", "--to", "0", "--yes")
    adopted.exlb("push-config")
    assert current(adopted) == [2, 2, 2]
    assert "GREEN" in adopted.exlb("verify").stdout


def test_vip_that_does_not_go_stops_a_rollback_to_nothing(adopted: Site) -> None:
    for node in adopted.fleet:
        node.answers["addresses"] = (0, f"2: eth0    inet {node.node.address}/24 scope global eth0")
    stays = "2: eth0    inet 198.51.100.11/24 x\n2: eth0    inet 198.51.100.100/32 x"
    adopted.fleet["lb1"].answers["addresses"] = (0, stays)
    ran = adopted.exlb("rollback", "--to", "0", "--yes", status=1)
    assert "lb1 holds 198.51.100.100, although keepalived is stopped" in ran.said


def test_hand_edit_is_kept_by_a_rollback_too(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    edited = green.fleet["lb1"].files[PROXY.path].text = texts(green)[0] + "# mine\n"
    green.exlb("rollback")
    assert current(green) == [1, 1, 1]
    kept_file = green.fleet["lb1"].generations[3].files[PROXY.path]
    assert kept_file is not None
    assert kept_file.text == edited


@pytest.mark.parametrize("gone", [1, 2])
def test_generation_that_is_no_longer_kept_is_a_clear_error(green: Site, gone: int) -> None:
    for number in range(12):
        green.change(**(CHANGE if number % 2 else OTHER))
        green.exlb("push-config")
    assert kept(green)["lb1"] == [0, *range(4, 14)]
    before = green.fleet.state
    ran = green.exlb("rollback", "--to", str(gone), status=2)
    assert f"lb1: generation {gone} is not kept; kept: 0, 4, 5, 6" in ran.said
    assert "exlb history" in ran.said
    assert green.fleet.state == before
    green.exlb("rollback", "--to", "4")
    assert current(green) == [4, 4, 4]


def test_number_that_no_node_has_reached_is_a_clear_error(green: Site) -> None:
    ran = green.exlb("rollback", "--to", "7", status=2)
    assert "--to 7: the newest on any node is generation 1" in ran.said


@pytest.mark.parametrize("words", [(), ("--to", "0")], ids=["", "--to 0"])
def test_rollback_of_nodes_that_keep_nothing_is_a_clear_error(fresh: Site, words: tuple[str, ...]) -> None:
    ran = fresh.exlb("rollback", *words, status=2)
    assert "no generation" in ran.said
    assert "exlb history" in ran.said


def test_dry_run_of_a_rollback_shows_it_and_touches_nothing(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    before = green.fleet.state
    ran = green.exlb("rollback", "--dry-run")
    assert "+    balance source" in ran.stdout
    assert "pending" in ran.said
    assert "dry run: nothing was touched" in ran.said
    assert green.fleet.state == before
    planned = green.exlb("rollback", "--dry-run", "-o", "json").json
    done = green.exlb("rollback", "-o", "json").json
    assert planned["diffs"] == done["diffs"]
    assert [row["detail"] for row in planned["nodes"]] == [row["detail"] for row in done["nodes"]]


def test_node_that_refuses_the_old_generation_stops_the_rollback_before_the_first_change(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    before = texts(green)
    green.fleet["lb2"].failing["prepare"] = "[ALERT] unknown keyword 'balanze'"
    ran = green.exlb("rollback", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "failed", "lb3": "not started"}
    assert texts(green) == before


def test_rollback_refuses_when_a_node_is_unreachable_unless_told(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    green.fleet.cut("lb3")
    green.exlb("rollback", status=4)
    ran = green.exlb("rollback", "--skip-unreachable", "-o", "json", status=4)
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "unreachable"}


@pytest.mark.parametrize("command", ["push-config", "rollback"])
def test_node_that_is_lost_while_its_files_are_read_is_no_ground_for_a_plan(green: Site, command: str) -> None:
    green.change(**CHANGE)
    if command == "rollback":
        green.exlb("push-config")
        green.change(**OTHER)
    probes: list[str] = []

    def lose(call: str) -> None:
        probes.append(call)
        if len(probes) == 2:
            green.fleet.cut("lb2")
            assert green.fleet["lb2"].unreachable
            raise green.fleet["lb2"].unreachable

    green.fleet["lb2"].before = lose
    ran = green.exlb(command, status=4)
    assert "nothing was changed on any node" in ran.said


# A gate between nodes that fails


def blind(site: Site, name: str) -> None:
    """Let a node serve nobody from the next activation on, though its own program found nothing."""
    node = site.fleet[name]

    def break_it(call: str) -> None:
        if call.startswith("activate 0002"):
            node.answers[f"request https://{node.node.address}:8443/readyz"] = (7, "curl: (7) refused\n000 0")
        elif call.startswith("activate"):
            node.answers.clear()

    node.before = break_it


def test_node_that_does_not_serve_after_its_change_is_taken_back_and_the_roll_out_stops(green: Site) -> None:
    before = texts(green)
    blind(green, "lb3")
    green.change(**CHANGE)
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "changed", "lb3": "failed"}
    (told,) = [row["detail"] for row in ran.json["nodes"] if row["result"] == "failed"]
    assert "it does not serve: refused" in told
    assert told.endswith("back on the bytes that it had")
    assert texts(green)[::2] == before[::2]
    assert current(green) == [1, 2, 1]
    calls = [call for call in green.fleet["lb3"].calls if call.startswith(("prepare", "activate"))]
    assert calls == ["activate 0002 0001 reload none", "prepare 0001", "activate 0001 0003 reload none"]


def test_node_that_cannot_be_taken_back_is_told(green: Site) -> None:
    blind(green, "lb3")
    green.fleet["lb3"].failing["prepare"] = "generation 0001 is not kept here"
    green.change(**CHANGE)
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results["lb3"] == "failed"
    assert "it could not be taken back" in ran.said
    assert "generation 0001 is not kept here" in ran.said


@pytest.mark.parametrize("how", ["its program", "the gate"])
def test_rollback_all_takes_every_node_back(green: Site, how: str) -> None:
    before = texts(green)
    if how == "the gate":
        blind(green, "lb3")
    else:
        green.fleet["lb3"].failing["activate"] = "after 15 s: lb3 runs another configuration"
    green.change(**CHANGE)
    ran = green.exlb("push-config", "--on-failure", "rollback-all", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "restored", "lb3": "failed"}
    assert "back to generation 1, because another node failed" in ran.said
    assert (texts(green), current(green)) == (before, [1, 1, 1])


def test_push_after_a_roll_out_that_was_taken_back_has_the_next_number(green: Site) -> None:
    green.fleet["lb3"].failing["activate"] = "no"
    green.change(**CHANGE)
    green.exlb("push-config", "--on-failure", "rollback-all", status=1)
    green.fleet["lb3"].failing.clear()
    green.exlb("push-config")
    assert current(green) == [3, 3, 3]


# History


def test_history_shows_the_generations_of_every_node(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    rows: list[dict[str, Any]] = green.exlb("history", "-o", "json").json["generations"]
    assert [(row["node"], row["number"], row["active"]) for row in rows if row["node"] != "lb3"] == [
        ("lb1", 0, False), ("lb1", 1, False), ("lb1", 2, True),
        ("lb2", 0, False), ("lb2", 1, False), ("lb2", 2, True),
    ]  # fmt: skip
    last = rows[2]
    meta = green.fleet["lb1"].generations[2].meta
    assert (last["when"], last["who"], last["origin"]) == (meta["when"], meta["who"], meta["from"])
    assert (last["what"], last["changed"]) == ("push-config", [PROXY.path])
    assert (rows[0]["what"], rows[0]["changed"]) == ("found on the node", [])
    assert rows[1]["changed"] == [PROXY.path, KEEPALIVED_PATH]


def test_history_says_who_wrote_what_and_which_is_active(green: Site) -> None:
    ran = green.exlb("history", "--nodes", "lb2")
    meta = green.fleet["lb2"].generations[1].meta
    when = meta["when"].replace("T", " ").removesuffix("Z")
    assert f"1 active {when} {meta['who']} from {meta['from']} push-config haproxy.cfg keepalived.conf" in ran.said
    assert "lb1" not in ran.stdout.split()
    assert all(call.startswith("probe") or call == "close" for call in green.fleet["lb2"].calls)


def test_history_tells_what_was_edited_by_hand_and_what_has_not_ended(green: Site) -> None:
    green.fleet["lb1"].files[PROXY.path].text += "# mine\n"
    green.fleet["lb2"].intent = (2, 1)
    green.fleet["lb3"].change = lambda: ""
    ran = green.exlb("history")
    assert "files were edited by hand since" in ran.said
    assert "a change to generation 2 was interrupted: the next push, or exlb recover, goes back to 1" in ran.said
    assert "a change runs right now" in ran.said
    told = green.exlb("history", "-o", "json").json["unfinished"]
    assert set(told) == {"lb1", "lb2", "lb3"}


def test_history_of_nodes_that_keep_nothing_says_how_to_begin(fresh: Site) -> None:
    assert "no node keeps a generation yet: exlb push-config makes the first" in fresh.exlb("history").said


def test_history_goes_on_without_an_unreachable_node_and_names_it(green: Site) -> None:
    green.fleet.cut("lb2")
    ran = green.exlb("history", status=4)
    assert "lb2 unreachable cannot connect" in ran.said
    assert "lb3" in ran.said


# Diff


def test_diff_is_0_where_nothing_differs(green: Site) -> None:
    assert "no differences" in green.exlb("diff").said
    assert {call.split()[0] for node in green.fleet for call in node.calls} == {"probe", "close"}


def test_diff_is_6_where_something_differs_and_shows_it(green: Site) -> None:
    before = green.fleet.state
    green.fleet["lb2"].files[PROXY.path].text = texts(green)[1].replace("balance source", "balance leastconn")
    ran = green.exlb("diff", status=6)
    assert "lb2: /etc/haproxy/haproxy.cfg" in ran.stdout
    assert "-    balance leastconn" in ran.stdout
    assert "+    balance source" in ran.stdout
    assert "the active files differ from the rendered ones" in ran.said
    green.exlb("push-config")
    green.exlb("diff")
    assert green.fleet.state != before


def test_diff_of_a_mode_alone_is_a_difference_too(green: Site) -> None:
    green.fleet["lb2"].files[KEEPALIVED_PATH].mode = 0o666
    ran = green.exlb("diff", status=6)
    assert "mode or owner" in ran.said


def test_diff_needs_no_lock_and_asks_nothing(green: Site) -> None:
    green.fleet["lb2"].lock = {"token": "aa", "who": "ann", "from": "b", "what": "push-config", "since": "now"}
    green.change(ROUTER_ID="69")
    ran = green.exlb("diff", status=6)
    assert "+    virtual_router_id 69" in ran.stdout
    assert not any(" lock " in entry for entry in green.fleet.journal)


def test_diff_goes_on_without_an_unreachable_node_and_names_it(green: Site) -> None:
    green.fleet.cut("lb3")
    ran = green.exlb("diff", status=4)
    assert "lb3 unreachable cannot connect" in ran.said
    green.change(**CHANGE)
    ran = green.exlb("diff", "-o", "json", status=4)
    assert ran.json["diffs"][0]["nodes"] == ["lb1", "lb2"]


def test_gate_of_a_rollback_waits_as_long_as_that_of_a_push(green: Site, clock: Clock) -> None:
    green.change(CHECK_INTERVAL="3")
    green.exlb("push-config")
    pushed = clock.passed
    green.exlb("rollback")
    assert clock.passed - pushed == pushed > 0

"""drill: a fault on the holder that is always undone, and a report of what it did cost."""

from __future__ import annotations

import json
import queue
import time as real
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from exlb_fab import node as programs
from exlb_fab import rehearsal, watching
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands import drill
from exlb_fab.commands.verify import VerifyReport
from exlb_fab.errors import ExlbError, RemoteError, UnreachableError
from exlb_fab.facts import Reply
from exlb_fab.fleet import Fleet
from exlb_fab.remote import Channel, Completed, Remote
from tests.cli.conftest import Site
from tests.cli.test_locks import ANN, steps
from tests.fake import FakeChannel, FakeFleet, FakeNode, FakeRemote
from tests.ran import Ran
from tests.schemas import validate

DRILL = programs.drill()
STEP_SECONDS = 0.05
WAIT_SECONDS = 20
DONE = "exlb-drill: done\n"
UNITS = {"proxy": ("haproxy",), "keepalived": ("keepalived",), "kill": ()}


class World(FakeFleet):
    """Nodes on which a drill can run, and time, which passes only while exlb waits.

    A fault is noticed after `detection_seconds`; after `outage_seconds` lb2 has taken over, and clients are answered
    again; once it is undone they are not for `after_seconds`. `ahead` are the clocks of nodes, in seconds before ours.
    `refusing` are what programs say that fail, `losing` how often the connection is lost at `end`. `on_step` is called
    at each step with the time since the fault, `on_pause` at each step. Clients on nodes that are `mute` say nothing;
    no keepalived logs anything while it is `silent`.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site.fleet.cluster)
        self.become(site.fleet)
        self.now = 1_795_219_200.0
        self.detection_seconds, self.outage_seconds = 1.0, 3.0
        self.ahead = {"lb1": 0.0, "lb2": 0.0, "lb3": 0.0}
        self.refusing: dict[str, str] = {}
        self.losing = 0
        self.stopped = False
        self.tokens: set[str] = set()
        self.silent = False
        self.at: float | None = None
        self.began, self.ended, self.after_seconds = 0.0, 0.0, 0.0
        self.fault = ""
        self.told: list[str] = []
        self.watches: list[Watch] = []
        self.on_step: Callable[[float], None] = lambda since: None
        self.on_pause: Callable[[], None] = lambda: None
        self.mute: Callable[[str], bool] = lambda name: False

    # Time, as the modules of exlb ask for it

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end - 1e-6:
            self.now += STEP_SECONDS
            if self.at is not None:
                self.on_step(self.now - self.at)
            self.on_pause()
            for watch in self.watches:
                watch.sample()
            # Who reads them takes note of the time; it must not be another one by then.
            deadline = real.monotonic() + WAIT_SECONDS
            while any(not watch.read for watch in self.watches):
                assert real.monotonic() < deadline, "nobody reads what a client says"
                real.sleep(0.0002)

    # What happens to the nodes

    def connect(self, node: Node) -> Remote:
        super().connect(node)
        return DrillRemote(self, self[node.name])

    @property
    def served(self) -> bool:
        if self.at is None:
            return self.now - self.ended >= self.after_seconds
        return self.now - self.at >= self.outage_seconds

    def log(self, name: str, at: float, text: str) -> None:
        if self.silent:
            return
        stamp = round((at + self.ahead[name]) * 1_000_000)
        made = {"__REALTIME_TIMESTAMP": str(stamp), "SYSLOG_IDENTIFIER": "Keepalived_vrrp", "MESSAGE": text}
        self[name].logged.append(json.dumps(made))

    def clock(self, name: str) -> int:
        return round((self.now + self.ahead[name]) * 1000)

    def begin(self, fake: FakeNode, fault: str) -> None:
        self.at, self.fault = self.now, fault
        self.began = self.now
        for unit in UNITS.get(fault, ()):
            fake.act(unit, "stop")
        if fault == "node":
            self.cut(fake.name)
            for watch in self.watches:
                if watch.name == fake.name:
                    watch.lost = UnreachableError(f"{fake.name}: connection lost")
        self.log(
            fake.name, self.at + self.detection_seconds, "VRRP_Script(check-haproxy) failed (exited with status 1)"
        )
        self.log("lb2", self.at + self.outage_seconds, "(VI) Entering MASTER STATE")
        self.log(fake.name, self.at + self.outage_seconds, "(VI) Entering BACKUP STATE")

    def end(self, fake: FakeNode) -> None:
        if self.at is None:
            return
        for unit in UNITS.get(self.fault, ()):
            fake.act(unit, "start")
        self.at, self.ended = None, self.now
        self.log(fake.name, self.now + 4, "(VI) Entering MASTER STATE")
        self.log("lb2", self.now + 4, "(VI) Entering BACKUP STATE")


class DrillRemote(FakeRemote):
    """A fake node that knows drill.sh, too."""

    def __init__(self, world: World, fake: FakeNode) -> None:
        super().__init__(world, fake)
        self._world = world
        self._node = fake

    def run(self, program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
        if program != DRILL:
            return super().run(program, args, data, limit_seconds)
        mode, *words = args
        world, fake = self._world, self._node
        fake.calls.append(mode)
        if mode in ("start", "end"):
            world.tokens.add(words[0])
        world.note(fake.name, " ".join((mode, *words[-2:])) if mode != "end" else mode)
        if fake.unreachable:
            raise fake.unreachable
        if mode in world.refusing:
            return Completed(1, f"exlb-drill: {world.refusing[mode]}\n", "")
        match mode, words:
            case "check", [_, _]:
                return Completed(0, DONE, "")
            case "start", [token, limit, length, fault, _]:
                assert data == program
                assert int(length) == len(program.encode())
                assert int(limit) > 0
                assert fake.lock is not None
                assert fake.lock["token"] == token
                world.told = [f"begun {world.clock(fake.name)}"]
                world.begin(fake, fault)
                world.told.append(f"injected {world.clock(fake.name)}")
            case "end", [_]:
                assert len(world.tokens) == 1
                if world.losing:
                    world.losing -= 1
                    raise UnreachableError(f"{fake.name}: connection lost")
                if world.at is not None:
                    world.end(fake)
                    world.told.append(f"undone {world.clock(fake.name)}")
            case _:
                raise AssertionError(args)
        return Completed(0, "".join(f"{line}\n" for line in world.told) + DONE, "")

    def open(self, program: str, args: Sequence[str] = ()) -> Channel:
        if program != DRILL:
            return super().open(program, args)
        mode, url, pause, limit = args
        assert (mode, url) == ("watch", "https://198.51.100.100:8443/readyz")
        assert float(pause) == watching.INTERVAL_SECONDS
        assert int(limit) > 0
        watch = Watch(self._world, self._node.name)
        self._world.watches.append(watch)
        return watch


class Watch:
    """A client on a fake node."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.lost: ExlbError | None = None
        self._world = world
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    @property
    def read(self) -> bool:
        return self._lines.empty() or self.lost is not None

    def sample(self) -> None:
        now = self._world.clock(self.name)
        if not self._world[self.name].unreachable and not self._world.mute(self.name):
            self._lines.put(f"request {now - 10} {now} {0 if self._world.served else 7}")

    def line(self, limit_seconds: float) -> str | None:
        if self.lost:
            raise self.lost
        try:
            return self._lines.get(timeout=0.02)
        except queue.Empty:
            raise RemoteError(f"{self.name}: no answer after {limit_seconds:.0f} s") from None

    def send(self, text: str) -> None:
        assert text == "\n"
        self._lines.put(f"clock {self._world.clock(self.name)}")

    def close(self) -> None:
        if self in self._world.watches:
            self._world.watches.remove(self)


@pytest.fixture
def world(green: Site, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three green nodes; lb1 holds the VIP, which the bastion does not reach."""
    made = World(green)
    green.fleet = made
    for module in (drill, rehearsal, watching):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(Fleet, "wait", lambda fleet, seconds: made.sleep(seconds))
    monkeypatch.setattr(Fleet, "stopped", property(lambda fleet: made.stopped))
    monkeypatch.setattr(World, "request", lambda self, url: None)
    return made


def drilled(green: Site, *words: str, status: int = 0) -> Ran:
    reports = str(green.folder / "reports")
    ran = green.exlb("drill", *words, "--yes", "--reports", reports, "-o", "json", status=status)
    if ran.stdout:
        validate("drill-1", ran.json)
    return ran


def folders(green: Site) -> list[Path]:
    return sorted((green.folder / "reports").iterdir()) if (green.folder / "reports").exists() else []


def faults(green: Site) -> list[str]:
    """Return what was injected where, in its order."""
    return [f"{entry.split()[0]} {entry.split()[2]}" for entry in steps(green, "start")]


def test_failover_is_measured_undone_and_compared_with_the_model(green: Site, world: World) -> None:
    ran = drilled(green, "proxy")
    (row,) = ran.json["drills"]
    assert row["fault"] == "proxy"
    assert row["holder"] == "lb1"
    assert row["new_holder"] == "lb2"
    assert row["moves"] == 2
    assert row["worst_seconds"] > 5
    assert row["detection_seconds"] == pytest.approx(1.0, abs=0.1)
    assert row["detected"].startswith("lb1: VRRP_Script(check-haproxy) failed")
    assert row["takeover_seconds"] == pytest.approx(3.0, abs=0.1)
    assert (row["restored"], row["green"], row["cut_short"], row["problem"]) == (True, True, None, None)
    assert (row["passed"], ran.json["passed"]) == (True, True)
    assert [each["watcher"] for each in row["watchers"]] == ["lb1", "lb2", "lb3"]
    for each in row["watchers"]:
        assert each["outage_seconds"] == pytest.approx(3.05, abs=0.1)
        assert each["resolution_seconds"] == pytest.approx(0.05, abs=0.01)
        assert each["within"]
        assert [tuple(map(round, span)) for span in each["silences"]] == [(0, 3)]
    assert [(each["node"], each["state"]) for each in row["transitions"]][-2:] == [("lb1", "MASTER"), ("lb2", "BACKUP")]
    assert steps(green, "start", "end") == ["lb1 start proxy haproxy", "lb1 end"]
    assert [node.lock for node in world] == [None, None, None]
    assert world.watches == []


def test_report_is_kept_as_text_json_and_a_picture(green: Site, world: World) -> None:
    ran = drilled(green, "proxy")
    (folder,) = folders(green)
    assert sorted(path.name for path in folder.iterdir()) == ["1-proxy.svg", "report.json", "report.txt"]
    assert json.loads((folder / "report.json").read_text()) == ran.json
    text = (folder / "report.txt").read_text()
    assert "every failover was within the model's worst case; everything is restored, and verify is green" in text
    assert "\x1b" not in text
    picture = ElementTree.parse(folder / "1-proxy.svg").getroot()
    words = " ".join(each.text or "" for each in picture.iter())
    for word in ("fault", "undone", "lb1 VRRP", "lb2 VRRP", "lb3", "no answer", "stops haproxy on lb1"):
        assert word in words
    assert f"the report is in {folder}" in ran.said


def test_what_will_be_done_is_said_before_it_is_asked_for(green: Site, world: World) -> None:
    ran = green.exlb("drill", "proxy", "--reports", str(green.folder / "reports"), status=2)
    assert "drill proxy stops haproxy on lb1; clients are without the VIP for at most" in ran.said
    assert "--yes goes on without asking" in ran.said
    assert faults(green) == []
    assert folders(green) == []


def test_clocks_that_are_apart_make_no_difference(green: Site, world: World) -> None:
    world.ahead = {"lb1": 40.0, "lb2": -25.0, "lb3": 0.5}
    (row,) = drilled(green, "proxy").json["drills"]
    assert row["takeover_seconds"] == pytest.approx(3.0, abs=0.15)
    assert row["detection_seconds"] == pytest.approx(1.0, abs=0.15)
    for each in row["watchers"]:
        assert each["outage_seconds"] == pytest.approx(3.05, abs=0.15)
    # Each is asked for what its own clock calls the time before.
    (asked,) = {entry.split()[2] for entry in steps(green, "logs")}
    assert int(asked.removeprefix("@")) < row_time(row) - 40


def row_time(row: dict[str, str]) -> float:
    return datetime.fromisoformat(row["at"]).timestamp()


def test_what_was_logged_before_the_fault_is_neither_detection_nor_move(green: Site, world: World) -> None:
    world.log("lb2", world.now - 30, "(VI) Entering MASTER STATE")
    (row,) = drilled(green, "proxy").json["drills"]
    assert row["detection_seconds"] == pytest.approx(1.0, abs=0.1)
    assert row["moves"] == 2


def test_answer_is_told_although_its_folder_cannot_be_written(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(report: object, folder: Path) -> None:
        raise ExlbError(f"cannot write to {folder}: No space left on device")

    monkeypatch.setattr("exlb_fab.cli.drill.keep", full)
    ran = drilled(green, "proxy", status=1)
    assert [row["restored"] for row in ran.json["drills"]] == [True]
    assert "No space left on device" in ran.stderr


def test_fault_that_is_noticed_only_once_it_is_undone_was_not_noticed(green: Site, world: World) -> None:
    world.detection_seconds, world.outage_seconds = 60.0, 61.0
    (row,) = drilled(green, "keepalived", status=1).json["drills"]
    assert (row["detection_seconds"], row["new_holder"]) == (None, None)


def test_red_cluster_is_not_drilled(green: Site, world: World) -> None:
    world["lb3"].act("haproxy", "stop")
    ran = drilled(green, "proxy", status=1)
    assert "verify is not green, and a drill would add to it" in ran.said
    assert "node.proxy on lb3" in ran.said
    assert faults(green) == []
    assert folders(green) == []


def test_node_that_cannot_be_asked_stops_a_drill(green: Site, world: World) -> None:
    world.cut("lb3")
    drilled(green, "keepalived", status=1)
    assert faults(green) == []


def test_nodes_of_another_session_are_not_drilled(green: Site, world: World) -> None:
    world["lb2"].lock = dict(ANN)
    assert "locked by ann from bastion-2" in drilled(green, "proxy", status=5).said
    assert faults(green) == []


def test_outage_that_the_model_does_not_allow_is_a_failure(green: Site, world: World) -> None:
    world.outage_seconds = 8.0
    ran = drilled(green, "proxy", status=1)
    (row,) = ran.json["drills"]
    assert [each["within"] for each in row["watchers"]] == [False] * 3
    assert (row["restored"], row["green"]) == (True, True)
    (folder,) = folders(green)
    assert "clients were without the VIP for longer than the model's worst case" in (folder / "report.txt").read_text()


def unmeasured(green: Site, world: World, mute: Callable[[str], bool]) -> str:
    """Drill while a client is mute; return why the report says that nobody knows what it would have seen."""
    world.mute = mute
    (row,) = drilled(green, "proxy", status=1).json["drills"]
    assert (row["restored"], row["green"], row["within"], row["passed"]) == (True, True, False, False)
    by_name = {each["watcher"]: each for each in row["watchers"]}
    assert {name: each["within"] for name, each in by_name.items()} == {"lb1": True, "lb2": False, "lb3": True}
    assert (by_name["lb1"]["unmeasured"], by_name["lb3"]["unmeasured"]) == (None, None)
    assert row["outage_seconds"] == pytest.approx(3.05, abs=0.1)
    (folder,) = folders(green)
    said = by_name["lb2"]["unmeasured"]
    assert f"proxy: could not be measured: {said}" in " ".join((folder / "report.txt").read_text().split())
    return str(said)


def test_client_that_ends_while_the_fault_lasts_passes_no_drill(green: Site, world: World) -> None:
    said = unmeasured(green, world, lambda name: name == "lb2" and world.at is not None and world.now - world.at > 6)
    assert said.startswith("lb2: sent no request for ")


def test_client_that_ends_once_the_fault_is_undone_passes_no_drill(green: Site, world: World) -> None:
    unmeasured(green, world, lambda name: name == "lb2" and world.ended > 0 and world.now - world.ended > 1)


def test_client_that_is_lost_is_told_with_the_reason(green: Site, world: World) -> None:
    def lose(since: float) -> None:
        for watch in world.watches:
            if watch.name == "lb2" and since > 6:
                watch.lost = UnreachableError("lb2: connection lost: reset")

    world.on_step = lose
    assert unmeasured(green, world, lambda name: False) == "lb2: connection lost: reset"


def test_client_that_has_said_nothing_at_all_passes_no_drill(green: Site, world: World) -> None:
    unmeasured(green, world, lambda name: name == "lb2")


@pytest.mark.parametrize("fault", ["proxy", "node"])
def test_holder_whose_clock_was_never_read_is_unmeasured_and_the_rest_is_told(
    green: Site, world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(power: rehearsal.Power) -> None:
        power.spare()
        world["lb1"].unreachable = None

    monkeypatch.setattr(rehearsal.Power, "on", on)
    world.ahead["lb1"] = 4000.0
    send = Watch.send
    monkeypatch.setattr(Watch, "send", lambda watch, text: None if watch.name == "lb1" else send(watch, text))
    power = ["--allow-poweroff", "--power-on", "true"] if fault == "node" else []
    (row,) = drilled(green, fault, *power, status=1 if fault == "proxy" else 0).json["drills"]
    assert (row["restored"], row["green"], row["new_holder"]) == (True, True, "lb2")
    assert row_time(row) == pytest.approx(world.began, abs=1.5)
    assert row["undone_seconds"] < 700
    by_name = {each["watcher"]: each for each in row["watchers"]}
    assert by_name["lb2"]["outage_seconds"] == pytest.approx(3.05, abs=0.1)
    if fault == "proxy":
        assert by_name["lb1"]["unmeasured"] is not None


def test_client_that_is_starved_passes_no_drill(green: Site, world: World) -> None:
    said = unmeasured(green, world, lambda name: name == "lb2" and world.now % 1 > 0.3)
    assert float(said.split()[-2]) == pytest.approx(0.7, abs=0.1)


def test_client_that_is_late_within_bounds_is_measured(green: Site, world: World) -> None:
    world.mute = lambda name: name == "lb2" and world.now % 1 < 0.3
    (row,) = drilled(green, "proxy").json["drills"]
    assert row["watchers"][1]["resolution_seconds"] > 0.2


def test_fault_without_effect_passes_no_drill(green: Site, world: World) -> None:
    world.outage_seconds, world.silent = 0.0, True
    ran = drilled(green, "partition", status=1)
    (row,) = ran.json["drills"]
    assert (row["within"], row["restored"], row["green"]) == (True, True, True)
    assert (row["new_holder"], row["passed"]) == (None, False)
    assert "partition: nobody took over" in (folders(green)[0] / "report.txt").read_text()


def test_interrupted_drill_is_undone_at_once(green: Site, world: World) -> None:
    def stop(since: float) -> None:
        world.stopped = since > 2

    world.on_step = stop
    ran = drilled(green, "proxy", status=130)
    (row,) = ran.json["drills"]
    assert (row["cut_short"], row["restored"]) == ("interrupted", True)
    assert row["undone_seconds"] == pytest.approx(2.0, abs=0.6)
    assert world["lb1"].running is not None
    assert [node.lock for node in world] == [None, None, None]
    assert folders(green) != []


def test_interrupt_before_the_first_fault_injects_none(green: Site, world: World) -> None:
    world.stopped = True
    ran = drilled(green, "proxy", status=130)
    assert "interrupted: no fault was injected" in ran.said
    assert faults(green) == []


def test_end_of_a_partition_is_held_against_the_model_too(green: Site, world: World) -> None:
    """Who comes back announces the VIP within GARP_MASTER_REFRESH, 1 s here."""
    world.outage_seconds = 0.0
    world.after_seconds = 2.0
    (row,) = drilled(green, "partition", status=1).json["drills"]
    assert row["undone_worst_seconds"] == 1.0
    for each in row["watchers"]:
        assert each["outage_seconds"] < 0.1
        assert each["afterwards_seconds"] == pytest.approx(2.05, abs=0.1)
        assert not each["within"]


def test_way_back_that_costs_more_than_the_fault_may_is_too_long(green: Site, world: World) -> None:
    world.after_seconds = 7.0
    (row,) = drilled(green, "proxy", status=1).json["drills"]
    assert row["undone_worst_seconds"] == row["worst_seconds"]
    for each in row["watchers"]:
        assert each["outage_seconds"] < row["worst_seconds"] < 6.5 < each["afterwards_seconds"]
        assert not each["within"]


def test_way_back_may_cost_what_the_fault_may(green: Site, world: World) -> None:
    world.after_seconds = 2.0
    assert drilled(green, "proxy").json["passed"]


def test_host_that_exlb_runs_on_is_not_powered_off(green: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "_is_here", lambda node: node.name == "lb1")
    ran = drilled(green, "node", "--allow-poweroff", "--power-on", "true", status=1)
    assert "exlb runs on this node" in ran.said
    assert faults(green) == []


def test_host_that_exlb_runs_on_is_not_powered_off_where_the_vip_has_gone_to_it_meanwhile(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill, "_is_here", lambda node: node.name == "lb2")
    world.outage_seconds, world.detection_seconds = 0.4, 0.2
    ready = drill._ready

    def moved(cluster: Cluster, report: VerifyReport) -> Node:
        """Stay where the first failover has brought the VIP, as with PREEMPT=no."""
        return cluster.nodes[1] if faults(green) else ready(cluster, report)

    monkeypatch.setattr(drill, "_ready", moved)
    ran = drilled(green, "all", "--allow-poweroff", "--power-on", "true", status=1)
    assert "exlb runs on this node" in ran.json["stopped"]
    assert "lb2 node" not in faults(green)
    assert "lb2 partition" in faults(green)


def test_connection_that_is_lost_is_made_again_to_undo(green: Site, world: World) -> None:
    def lose(since: float) -> None:
        for watch in world.watches:
            if watch.name == "lb1" and since > 2:
                watch.lost = UnreachableError("lb1: connection lost: reset")

    world.on_step, world.losing = lose, 2
    ran = drilled(green, "proxy", status=1)
    (row,) = ran.json["drills"]
    assert (row["cut_short"], row["restored"], row["green"]) == ("lb1: connection lost: reset", True, True)
    assert len(steps(green, "end")) == 3
    assert row["undone_seconds"] < 8


def test_fault_that_the_node_refuses_is_ended_and_told(green: Site, world: World) -> None:
    world.refusing["start"] = "systemd refuses the unit that would undo the fault; nothing was done"
    ran = drilled(green, "proxy", status=1)
    (row,) = ran.json["drills"]
    assert row["restored"]
    assert "systemd refuses the unit" in row["problem"]
    assert len(steps(green, "end")) == 1


def test_fault_that_is_not_undone_is_said_loudly(green: Site, world: World) -> None:
    world.refusing["end"] = "the fault could not be undone; journalctl -u exlb-drill says why"
    ran = drilled(green, "all", status=1)
    (row,) = ran.json["drills"]
    assert (row["restored"], row["green"]) == (False, None)
    assert row["hint"] == "exlb restart haproxy --nodes lb1"
    assert ran.json["stopped"] == "drill proxy did not end well"
    (folder,) = folders(green)
    assert "NOT EVERYTHING IS RESTORED" in (folder / "report.txt").read_text()


def test_all_are_drilled_one_after_the_other_under_one_lock(green: Site, world: World) -> None:
    world.outage_seconds, world.detection_seconds = 0.4, 0.2
    ran = drilled(green, "all")
    assert faults(green) == ["lb1 proxy", "lb1 keepalived", "lb1 kill", "lb1 partition"]
    assert [each["fault"] for each in ran.json["drills"]] == ["proxy", "keepalived", "kill", "partition"]
    assert ran.json["left_out"] == ["node: only with --allow-poweroff and --power-on COMMAND"]
    assert len(steps(green, "lock")) == 3
    (folder,) = folders(green)
    assert len(list(folder.glob("*.svg"))) == 4
    order = [entry.split()[1] for entry in steps(green, "start", "end")]
    assert order == ["start", "end"] * 4


def test_no_fault_is_injected_once_the_lock_of_another_node_is_lost(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = FakeChannel.send

    def lost(channel: FakeChannel, text: str) -> None:
        if channel._fake.name == "lb3" and faults(green):
            raise UnreachableError("lb3: connection lost: reset")
        send(channel, text)

    monkeypatch.setattr(FakeChannel, "send", lost)
    world.outage_seconds, world.detection_seconds = 0.4, 0.2
    ran = drilled(green, "all", status=1)
    assert faults(green) == ["lb1 proxy"]
    assert ran.json["stopped"] == "the lock of a node is lost: lb3: connection lost: reset"
    assert ran.json["drills"][0]["passed"]


def test_fault_that_the_holder_cannot_do_is_refused_with_the_reason(green: Site, world: World) -> None:
    world.refusing["check"] = "neither nft nor iptables can drop VRRP on this node"
    assert "lb1: neither nft nor iptables" in drilled(green, "partition", status=1).said
    assert faults(green) == []


@pytest.mark.parametrize(
    "words",
    [
        ("node",),
        ("node", "--allow-poweroff"),
        ("node", "--power-on", "true"),
        ("all", "--allow-poweroff"),
        ("flood",),
        ("proxy", "--allow-poweroff", "--power-on", "true"),
        ("kill", "--power-on", "true"),
        ("partition", "--allow-poweroff"),
    ],
    ids=" ".join,
)
def test_node_is_powered_off_only_with_a_way_to_come_back(green: Site, world: World, words: tuple[str, ...]) -> None:
    drilled(green, *words, status=2)
    assert faults(green) == []
    assert steps(green, "probe") == []


def test_node_without_power_is_powered_on_by_the_command_of_the_operator(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = green.folder / "powered"
    own = rehearsal.Power.on

    def on(power: rehearsal.Power) -> None:
        assert not mark.exists()
        own(power)
        world["lb1"].unreachable = None
        # Its lock is lost with it.
        world["lb1"].lock = None

    monkeypatch.setattr(rehearsal.Power, "on", on)
    command = f'echo "$EXLB_NODE $EXLB_ADDRESS" >>{mark}'
    ran = drilled(green, "node", "--allow-poweroff", "--power-on", command)
    (row,) = ran.json["drills"]
    assert mark.read_text() == "lb1 198.51.100.11\n"
    assert (row["restored"], row["green"], row["new_holder"]) == (True, True, "lb2")
    by_name = {each["watcher"]: each for each in row["watchers"]}
    assert by_name["lb2"]["outage_seconds"] == pytest.approx(3.05, abs=0.1)
    assert by_name["lb1"]["last_seconds"] < 1 < by_name["lb2"]["last_seconds"]


def refusing_power(green: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Drill node, which lb1 refuses; return what became of its power, and how often it was asked before."""
    deeds: list[str] = []
    spare = rehearsal.Power.spare

    def on(power: rehearsal.Power) -> None:
        deeds.append("powered on")
        world.losing = 0
        spare(power)

    def spared(power: rehearsal.Power) -> None:
        deeds.append(f"spared after {len(steps(green, 'end'))}")
        spare(power)

    monkeypatch.setattr(rehearsal.Power, "on", on)
    monkeypatch.setattr(rehearsal.Power, "spare", spared)
    world.refusing["start"] = "systemd refuses the unit that would undo the fault; nothing was done"
    (row,) = drilled(green, "node", "--allow-poweroff", "--power-on", "true", status=1).json["drills"]
    assert "systemd refuses the unit" in row["problem"]
    assert row["restored"]
    return deeds


def test_power_is_spared_once_the_node_says_again_that_it_does_not_go(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusing_power(green, world, monkeypatch) == ["spared after 1"]


def test_node_that_refused_and_does_not_answer_any_more_is_powered_on(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.losing = 1000
    assert refusing_power(green, world, monkeypatch) == ["powered on"]


def test_nodes_cannot_be_chosen(green: Site, world: World) -> None:
    assert "all nodes watch" in drilled(green, "proxy", "--nodes", "lb2", status=2).said


def test_folder_that_cannot_be_made_stops_a_drill_before_it_begins(green: Site, world: World) -> None:
    (green.folder / "reports").write_text("a file")
    assert "--reports DIR names another place" in drilled(green, "proxy", status=2).said
    assert faults(green) == []


def test_user_without_a_home_is_told_to_name_a_place(
    green: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    ran = green.exlb("drill", "proxy", "--yes", status=2)
    assert "no place for the report" in ran.said
    assert "--reports DIR names one" in ran.said
    assert faults(green) == []


def test_bastion_watches_where_it_reaches_the_vip(green: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def request(self: World, url: str) -> Reply | None:
        asked.append(url)
        return FakeFleet.request(self, url)

    monkeypatch.setattr(World, "request", request)
    # Its threads live in real time: they are to ask in each step.
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.001)

    def ask() -> None:
        before, deadline = len(asked), real.monotonic() + WAIT_SECONDS
        while world.watches and len(asked) == before:
            assert real.monotonic() < deadline
            real.sleep(0.001)

    world.on_pause = ask
    ran = drilled(green, "proxy")
    assert ran.json["drills"][0]["watchers"][0]["watcher"] == "the bastion"
    assert "the bastion does not reach" not in ran.said
    assert len(asked) > 3

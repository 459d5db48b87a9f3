"""The lab: real systemd machines on this host, in a network namespace of their own."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from exlb_fab.errors import LabError
from exlb_fab.lab import cgroups, disks, files, image, layout, machines, network, standins
from exlb_fab.lab.furnish import furnish
from exlb_fab.lab.host import python_words, require_host, require_root, require_watches, search_path, succeeds
from exlb_fab.lab.image import Image
from exlb_fab.lab.launch import last_line
from exlb_fab.lab.layout import LabLayout, LabNode, NodeLayout, lab_layout
from exlb_fab.lab.locks import locked
from exlb_fab.lab.waiting import until

AnyNode = LabNode | str | int  # a node, its name or address, or its number from 1 on

_LOCK_LIMIT_S = 180
_SSH_LIMIT_S = 90
_APISERVER_LIMIT_S = 20


def ignore(_: str) -> None:
    """Take a message of progress and do nothing with it."""


@dataclass(frozen=True)
class NodeStatus:
    """How one node is."""

    name: str
    address: str
    release: str
    state: str  # "running" or "off"
    partitioned: bool
    ssh: bool
    apiserver: str  # a mode; "off" where it does not run

    @property
    def normal(self) -> bool:
        """Tell whether the node is as `up` leaves it."""
        return self.ssh and not self.partitioned and self.apiserver == "ok"


@dataclass(frozen=True)
class LabStatus:
    """How one lab is."""

    name: str
    directory: Path
    vip: str
    nodes: tuple[NodeStatus, ...]


@dataclass(frozen=True)
class _Description:
    """What a lab is made with; the first thing that `up` writes."""

    releases: tuple[str, ...]  # of each node
    images: dict[str, str]  # release -> directory

    @classmethod
    def read(cls, lab: LabLayout) -> Self | None:
        """Return the description of a lab, None if there is no lab; raises LabError."""
        try:
            found = json.loads(lab.description.read_text())
            if "release" in found:
                raise LabError(
                    f"the lab {lab.name!r} was made by an older exlb: {lab.description} has no release of each node",
                    hint=layout.command("down", lab.name),
                )
            return cls(releases=tuple(found["releases"]), images=found["images"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as problem:
            raise LabError(f"{lab.description}: {problem}", hint=layout.command("down", lab.name)) from None


def _agreeing(lab: LabLayout, releases: tuple[str, ...]) -> _Description | None:
    """Return the lab's description, None if there is no lab; raises LabError if it is not as asked for."""
    description = _Description.read(lab)
    if description and description.releases != releases:
        raise LabError(
            f"the lab {lab.name!r} has {_counted(description.releases)}, not {_counted(releases)}",
            hint=layout.command("down", lab.name),
        )
    return description


def _paths(images: Mapping[str, Image]) -> dict[str, str]:
    return {release: str(each.directory) for release, each in images.items()}


def _counted(releases: tuple[str, ...]) -> str:
    """Return `3 nodes of bookworm` or `3 nodes of bullseye, trixie, trixie`."""
    return f"{len(releases)} nodes of {', '.join(releases if len(set(releases)) > 1 else releases[:1])}"


class Lab:
    """One lab that exists."""

    def __init__(self, lab: LabLayout, description: _Description) -> None:
        self._layout = lab
        self._images = {release: Image(Path(path)) for release, path in description.images.items()}
        self.name = lab.name
        self.nodes: tuple[LabNode, ...] = layout.nodes(description.releases)
        self.directory = lab.directory
        self.environment_file = lab.environment_file
        self.vip = layout.VIP
        self.vip6 = layout.VIP6
        self.gateway = str(layout.GATEWAY.ip)

    @classmethod
    def open(cls, name: str = "default") -> Self:
        """Return the lab of that name; raises LabError if there is none."""
        lab = lab_layout(name)
        try:
            description = _Description.read(lab)
        except PermissionError:
            raise LabError(f"the lab {name!r} is root's", hint="sudo exlb lab status") from None
        if description is None or not lab.environment_file.exists():
            raise LabError(f"there is no lab {name!r}", hint=layout.command("up", name))
        return cls(lab, description)

    @classmethod
    def up(
        cls,
        name: str = "default",
        nodes: int | None = None,
        releases: Sequence[str] = (layout.DEFAULT_RELEASE,),
        progress: Callable[[str], None] = ignore,
    ) -> Self:
        """Bring a lab to its normal state and return it, making what is missing of it.

        The nodes take the releases in order, and again from the first; without `nodes` there are three, or as many as
        there are releases. Normal: every node runs, is plugged in, answers over SSH from the bastion, and its stand-in
        answers `ok`. Raises LabUnavailable if this host cannot run a lab, LabError if the lab exists with other nodes.
        """
        require_host()
        lab = lab_layout(name)
        wanted = layout.spread(nodes, releases)
        existing = _agreeing(lab, wanted)
        images = existing.images if existing else _paths(image.ensure(dict.fromkeys(wanted), progress))
        with _at_work(lab):
            # Read again: another `up` may have made it, or a `down` removed it, while this one waited.
            existing = _agreeing(lab, wanted)
            if existing is None:
                _clear(lab)  # of what a `down` that was killed has left
                existing = _Description(wanted, images)
            self = cls(lab, existing)
            if gone := [str(each.directory) for each in self._images.values() if not each.present()]:
                raise LabError(f"images of the lab are gone: {', '.join(gone)}", hint=layout.command("down", name))
            files.write(lab.description, json.dumps(asdict(existing)))
            network.ensure(lab)
            furnish(lab, self.nodes, self._images)
            self._bring_up(self.nodes, progress)
        return self

    def down(self) -> None:
        """Remove the lab and all that belongs to it; the image cache stays."""
        down(self.name)

    # Nodes

    def node(self, node: AnyNode) -> LabNode:
        """Return a node by its name, address or number (from 1 on); raises LabError naming the nodes there are."""
        for number, candidate in enumerate(self.nodes, start=1):
            if node in (candidate, candidate.name, candidate.address, number, str(number)):
                return candidate
        names = ", ".join(candidate.name for candidate in self.nodes)
        raise LabError(f"the lab {self.name!r} has no node {node}", hint=f"its nodes: {names}")

    def status(self) -> LabStatus:
        """Return how every node is, right now."""
        require_root()
        with ThreadPoolExecutor(max_workers=len(self.nodes)) as executor:
            nodes = tuple(executor.map(self._node_status, self.nodes))
        return LabStatus(self.name, self.directory, self.vip, nodes)

    def _node_status(self, node: LabNode) -> NodeStatus:
        place = self._layout.node(node)
        leader = machines.leader(place) if network.is_up(self._layout) else None
        off = NodeStatus(
            node.name, node.address, node.release, "off", partitioned=False, ssh=False, apiserver=standins.OFF
        )
        if leader is None:
            return off
        try:
            partitioned = network.bridge_of(self._layout, leader) == layout.CUT_BRIDGE
            return NodeStatus(
                name=node.name,
                address=node.address,
                release=node.release,
                state="running",
                partitioned=partitioned,
                ssh=not partitioned and self._answers_ssh(node),
                apiserver=standins.mode(place),
            )
        except LabError:
            if machines.leader(place) == leader:
                raise
            return off  # it died while it was looked at

    def poweroff(self, node: AnyNode) -> None:
        """Have the node's systemd power it off, and wait until it is off; raises LabError at the limit."""
        place = self._layout.node(self.node(node))
        with self._acting():
            machines.power_off(place)
            standins.stop_all(place)

    def cut(self, node: AnyNode) -> None:
        """Cut the node's power: all its processes are killed at once, its disk stays as it is."""
        place = self._layout.node(self.node(node))
        with self._acting():
            machines.cut_power(place)
            standins.stop_all(place)

    def boot(self, node: AnyNode) -> None:
        """Bring the node to its normal state: running, plugged in, answering over SSH, its stand-in in mode `ok`."""
        wanted = self.node(node)
        with self._acting():
            network.ensure(self._layout)
            self._bring_up([wanted], ignore)

    def partition(self, node: AnyNode) -> None:
        """Cut the node off silently: its carrier stays, and nothing reaches it; raises LabError if it is off."""
        self._plug(node, layout.CUT_BRIDGE)

    def heal(self, node: AnyNode) -> None:
        """End the node's partition, if there is one; raises LabError if the node is off."""
        self._plug(node, layout.LAB_BRIDGE)

    def _plug(self, node: AnyNode, bridge: str) -> None:
        place = self._layout.node(self.node(node))
        with self._acting():
            network.plug(self._layout, machines.require_leader(place), bridge)

    def apiserver(self, node: AnyNode, mode: str) -> None:
        """Have the node's stand-in answer in a mode, from the next request on; "off" ends it, any other starts it.

        Raises LabError on a mode that there is not, and if the node is off.
        """
        standins.require_mode(mode)
        place = self._layout.node(self.node(node))
        with self._acting():
            leader = machines.require_leader(place)
            if mode == standins.OFF:
                standins.stop(place)
            elif not standins.is_running(place):
                standins.write_mode(place, "ok")
                standins.start(place, leader)
                # Asked from the node itself, which may be partitioned.
                self._await_apiserver(place, Path(f"/proc/{leader}/ns/net"))
            standins.write_mode(place, mode)

    def backend(self, node: AnyNode, port: int) -> None:
        """Have a backend stand-in listen at a port of the node until the node ends; see `exlb_fab.lab.backend`.

        Nothing happens if it does already. Raises LabError if the node is off, and if the port is taken.
        """
        place = self._layout.node(self.node(node))
        with self._acting():
            standins.start_backend(place, machines.require_leader(place), port)

    def end_backend(self, node: AnyNode, port: int) -> None:
        """End the backend stand-in at a port of the node, if there is one."""
        place = self._layout.node(self.node(node))
        with self._acting():
            standins.stop_backend(place, port)

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Hold the lab's lock; raises LabError if the lab is gone, and leaves no trace of the lock then."""
        with _at_work(self._layout):
            if not self._layout.description.exists():
                _leave(self._layout)
                raise LabError(f"there is no lab {self.name!r} any more", hint=layout.command("up", self.name))
            yield

    # Commands

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the words that run `command` on the bastion: in its network namespace, on this host's files.

        Raises LabError if the lab has no bastion (any more).
        """
        require_root()
        if not network.is_up(self._layout):
            raise LabError(
                f"the lab {self.name!r} has not been up since this host started", hint=layout.command("up", self.name)
            )
        return ["nsenter", f"--net={self._layout.namespace_file}", "--", *command]

    def variables(self) -> dict[str, str]:
        """Return the variables by which exlb finds the lab."""
        return {"EXLB_ENV": str(self.environment_file)}

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        capture: bool = False,
        input: bytes | None = None,  # noqa: A002 - as in subprocess.run
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the bastion and return how it ended, whatever its exit status.

        `env` is added to this process's environment and the lab's variables. `timeout` is in seconds; beyond it the
        command is killed and subprocess.TimeoutExpired raised. Raises LabError if the lab has no bastion (any more).
        """
        return subprocess.run(
            self.argv(command),
            env=self.command_environment(env),
            capture_output=capture,
            input=input,
            timeout=timeout,
            check=False,
        )

    def popen(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command on the bastion; `options` are those of subprocess.Popen."""
        return subprocess.Popen(self.argv(command), env=self.command_environment(env), **options)

    def shell_in(
        self,
        node: AnyNode,
        command: Sequence[str],
        *,
        capture: bool = True,
        input: bytes | None = None,  # noqa: A002 - as in subprocess.run
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root inside the node, in all its namespaces, without SSH.

        Returns how it ended, whatever its exit status. Raises LabError if the node is off.
        """
        # An empty input, and not ours: a command on a node has nobody to ask.
        words = self._words_in(node, command)
        return subprocess.run(words, capture_output=capture, input=input or b"", timeout=timeout, check=False)

    def popen_in(self, node: AnyNode, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command as root inside the node; it dies with the node. Raises LabError if the node is off."""
        return subprocess.Popen(self._words_in(node, command), **options)

    def _words_in(self, node: AnyNode, command: Sequence[str]) -> list[str]:
        return machines.words_inside(self._layout.node(self.node(node)), command)

    def ssh_argv(self, node: AnyNode, command: Sequence[str] = (), *, user: str = "root") -> list[str]:
        """Return the words of the ordinary ssh client on the bastion, trusting the lab's known_hosts alone."""
        return self._ssh_argv(self.node(node), command, user=user, patience_s=10)

    def _ssh_argv(self, node: LabNode, command: Sequence[str], *, user: str, patience_s: int) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(patience_s),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            # A node that dies says nothing: else ssh would wait for it for hours, and outlive the lab.
            "ServerAliveInterval": "1",
            "ServerAliveCountMax": str(patience_s),
            "StrictHostKeyChecking": "yes",
            # ssh takes blanks as separators of several files.
            "UserKnownHostsFile": f'"{self._layout.known_hosts}"',
        }
        words = ["ssh", "-F", "/dev/null", "-i", str(self._layout.key)]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        return self.argv([*words, "-l", user, node.address, *(["--", *command] if command else [])])

    def command_environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of commands on the bastion: ours, the lab's variables, and `extra`."""
        # The exlb of this Python comes first: it is not on root's PATH as a rule.
        path = os.pathsep.join([str(Path(sys.executable).parent), search_path()])
        return {**os.environ, "PATH": path, **self.variables(), **(extra or {})}

    # Bringing nodes up

    def _bring_up(self, nodes: Sequence[LabNode], progress: Callable[[str], None]) -> None:
        """Bring nodes to their normal state, all at the same time; raises the first one's error when all have ended."""
        asleep = [node.name for node in nodes if not machines.is_running(self._layout.node(node))]
        require_watches(len(asleep))
        progress(f"booting {', '.join(asleep)}" if asleep else "every node runs already")
        stopping = threading.Event()
        with ThreadPoolExecutor(max_workers=len(nodes)) as executor:
            futures = {executor.submit(self._bring_up_node, node, stopping): node for node in nodes}
            try:
                for future in as_completed(futures):
                    if future.exception() is None:
                        progress(f"{futures[future]} answers")
            except BaseException:
                stopping.set()
                raise
        for future in futures:
            future.result()

    def _bring_up_node(self, node: LabNode, stopping: threading.Event) -> None:
        place = self._layout.node(node)
        if not machines.is_running(place):
            standins.stop_all(place)  # those that have not noticed yet that their node is gone
        leader = machines.start(self._layout, place, self._images[node.release])
        standins.write_mode(place, "ok")
        standins.start(place, leader)
        network.plug(self._layout, leader, layout.LAB_BRIDGE)

        def settled() -> str | None:
            if stopping.is_set():
                return "stopped"
            if self._answers_ssh(node):
                return "answers"
            return None if machines.is_running(place) else "died"

        match until(settled, limit_s=_SSH_LIMIT_S, every_s=0.1):
            case "answers":
                self._await_apiserver(place, self._layout.namespace_file)
            case "died":
                raise LabError(f"{node} died: {last_line(place.console_log)}", hint=f"less {place.console_log}")
            case None:
                cut, boot = (layout.command(verb, self.name, node.name) for verb in ("cut", "boot"))
                raise LabError(
                    f"{node} does not answer over SSH within {_SSH_LIMIT_S} s (its console: {place.console_log})",
                    hint=f"{cut} && {boot}",
                )

    def _answers_ssh(self, node: LabNode) -> bool:
        # While that file is there, only root may log in.
        words = self._ssh_argv(node, ["test ! -e /run/nologin"], user="root", patience_s=2)
        return succeeds(words, limit_s=10)

    def _await_apiserver(self, place: NodeLayout, namespace: Path) -> None:
        """Wait until the stand-in answers over TLS, as seen from a network namespace; raises LabError."""
        words = ["nsenter", f"--net={namespace}", "--", *python_words("exlb_fab.lab.probe")]
        words += ["--port", str(layout.APISERVER_PORT), "--limit", str(_APISERVER_LIMIT_S)]
        words += [place.node.address, str(place.apiserver_certificate)]
        if not succeeds(words, limit_s=2 * _APISERVER_LIMIT_S):
            raise LabError(
                f"{place.node}: the kube-apiserver stand-in does not answer: {last_line(place.apiserver_log)}",
                hint=f"less {place.apiserver_log}",
            )


def labs() -> tuple[str, ...]:
    """Return the names of the labs that exist, half-made ones too, sorted."""
    home = layout.home()
    if not home.is_dir():
        return ()
    return tuple(sorted(path.name for path in home.iterdir() if path.is_dir() and layout.is_lab_name(path.name)))


def down(name: str = "default") -> None:
    """Remove a lab and all that belongs to it, finished or half-made; nothing happens if there is none.

    The image cache stays. Raises LabError if something of it resists.
    """
    require_root()
    lab = lab_layout(name)
    with _at_work(lab):
        _clear(lab)
        _leave(lab)
    if lab.home == layout.DEFAULT_HOME:
        with suppress(OSError):
            lab.home.rmdir()


def _clear(lab: LabLayout) -> None:
    """Remove what there may be of a lab, the lock aside.

    Nothing is looked up in records: all of it is found by the lab's name, whatever was killed while making it.
    """
    # First, so that nobody takes the rest for a lab; while there is a directory, `labs` names it.
    lab.description.unlink(missing_ok=True)
    cgroups.kill(lab.cgroup)
    cgroups.remove(lab.cgroup)
    network.remove(lab)
    disks.unmount(lab)
    for path in lab.directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != lab.lock:
            path.unlink()


def _leave(lab: LabLayout) -> None:
    """Remove the lock, which we hold, and the directory, which is otherwise empty."""
    lab.lock.unlink()
    # Whoever has waited for the lock may have made a new one already, and then the directory is theirs.
    with suppress(OSError):
        lab.directory.rmdir()


@contextmanager
def _at_work(lab: LabLayout) -> Iterator[None]:
    """Hold the lab's lock; what the system refuses meanwhile becomes a LabError."""
    with locked(lab.lock, what=f"the lab {lab.name!r}", limit_s=_LOCK_LIMIT_S):
        try:
            yield
        except OSError as problem:
            raise LabError(f"the lab {lab.name!r}: {problem}", hint=layout.command("down", lab.name)) from problem

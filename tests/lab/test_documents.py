"""The examples of docs/examples on real machines: green as they stand but for the addresses, and their drills.

Each drill is the one that the document itself tells its reader to do. A bound is what `exlb config` claims, and the
delay with which this host woke the client up.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlb_fab.generated import secrets_path
from exlb_fab.lab import Lab, down
from exlb_fab.understanding import load
from tests.lab.bastion import Bastion
from tests.lab.prober import REQUEST_SECONDS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LIMIT_SECONDS = 120
# What `exlb config` calls them.
PROXY_DIES = {"the proxy of the holder dies", "the same where a script has to check the process (a container)"}
NODE_DIES = {"the holder dies"}


def array(members: Sequence[str]) -> str:
    return f"({' '.join(map(shlex.quote, members))})"


def environment(example: str, lab: Lab, balancers: int, folder: Path, **variables: str) -> Path:
    """Write an environment file: the example as it stands, the lab's addresses and keys, and some variables more.

    The first machines of the lab are the load balancers.
    """
    path = folder / "environment.sh"
    nodes = lab.nodes[:balancers]
    own = {
        "NODE_IPS": array([node.address for node in nodes]),
        "NODE_NAMES": array([node.name for node in nodes]),
        **variables,
        "KUBE_APISERVER": '"https://${MASTER_VIP%/*}:${APISERVER_DEST_PORT}"',
    }
    lines = [f"source {shlex.quote(str(file))}" for file in (EXAMPLES / example / path.name, lab.environment_file)]
    path.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in own.items())]) + "\n")
    path.chmod(0o600)
    return path


def beside(lab: Lab, balancers: int) -> str:
    """Return the addresses of the machines that are no load balancers, as a bash array."""
    return array([node.address for node in lab.nodes[balancers:]])


@contextmanager
def machines(count: int) -> Iterator[Lab]:
    name = f"t-documents-{os.getpid() % 10000}"
    try:
        yield Lab.up(name, count)
    finally:
        down(name)


def deployed(lab: Lab, folder: Path, env: Path, warned: frozenset[str] = frozenset()) -> Bastion:
    """Return the bastion of a lab that an environment file has brought to green, with the first node as the holder.

    `warned` are the checks that warn there, and no other does.
    """
    cluster = load(env)
    bastion = Bastion(lab, folder, env, cluster.apiserver_listener.port)
    assert cluster.warnings == ()
    ran = bastion.exlb("deploy", "-o", "json")
    verdicts = ran.json["verify"]["verdicts"]
    assert {each["check"] for each in verdicts if each["status"] != "pass"} == warned
    settled(bastion)
    return bastion


def settled(bastion: Bastion) -> None:
    """Wait until the master holds the VIP and clients are served, and see that verify says so."""
    bastion.wait_until(lambda: bastion.holders() == ["lb1"] and bastion.served(), LIMIT_SECONDS)
    bastion.wait_until(lambda: bastion.exlb("verify", status=None).status == 0)


def moves(bastion: Bastion, events: Set[str], do: Callable[[], object]) -> None:
    """Do something to the holder, and see the VIP on another node, and clients served there within what exlb claims.

    A third node may have it for a moment: the timers of priorities 110 and 105 end 20 ms one after the other.
    """
    outages = bastion.exlb("config", "-o", "json").json["outages"]
    claimed = max(each["seconds"] for each in outages if each["event"] in events)
    with bastion.watched() as watch:
        do()
        bastion.wait_until(lambda: bastion.holders() == ["lb2"] and bastion.served(), LIMIT_SECONDS)
    assert watch.seen.longest_gap_seconds <= claimed + watch.seen.delay_seconds + REQUEST_SECONDS, watch.seen


def proxy(bastion: Bastion, verb: str) -> Callable[[], object]:
    return lambda: bastion.inside("lb1", "systemctl", verb, "haproxy")


def answer(bastion: Bastion, url: str, *options: str) -> str:
    """Return what a client of the lab gets from a URL."""
    done = bastion.lab.run(["curl", "-qsS", "--max-time", "5", *options, url], capture=True)
    assert done.returncode == 0, (url, done.returncode, done.stderr)
    return done.stdout.decode()


# bash-loops


@pytest.mark.slow
def test_bash_loops_of_the_document_are_answered_as_it_says(tmp_path: Path) -> None:
    with machines(3) as lab:
        bastion = deployed(lab, tmp_path, environment("bash-loops", lab, 3, tmp_path))
        for unit in ("haproxy", "keepalived"):
            ran = bastion.exlb("exec", "--", "sh", "-c", f"systemctl status {unit} | grep Active")
            assert ran.stdout.count("Active: active (running)") == 3
        assert bastion.exlb("exec", "--", "ss", "-Hltn", "sport", "=", "8443").stdout.count("0.0.0.0:8443") == 3
        assert bastion.exlb("exec", "--", "ping", "-c", "1", lab.vip).stdout.count(" 0% packet loss") == 3
        page = f"http://{lab.vip}:10080/status"
        assert "401 Unauthorized" in answer(bastion, page)
        (made,) = secrets_path(bastion.env).read_text().splitlines()
        login = tmp_path / "login"
        login.write_text(f'user = "admin:{made.removeprefix("STATS_PASSWORD=")}"\n')
        assert "kube-master" in answer(bastion, page, "--config", str(login))


@pytest.mark.slow
@pytest.mark.timing
def test_bash_loops_vip_moves_from_a_dead_proxy_by_multicast(tmp_path: Path) -> None:
    with machines(3) as lab:
        bastion = deployed(lab, tmp_path, environment("bash-loops", lab, 3, tmp_path))
        moves(bastion, PROXY_DIES, proxy(bastion, "stop"))
        proxy(bastion, "start")()
        settled(bastion)


# two-lb-ubuntu


@pytest.mark.slow
@pytest.mark.timing
def test_two_lb_ubuntu_vip_leaves_a_dead_proxy_and_comes_back(tmp_path: Path) -> None:
    with machines(5) as lab:
        for node in lab.nodes[:2]:
            lab.apiserver(node, "off")  # the proxy has its port on these two
        addresses = {
            "APISERVER_IPS": beside(lab, 2),
            "MASTER_VIP": f"{lab.vip}/24",
            "SSH_USER": "operator",  # who has sudo, as the document's user does
        }
        bastion = deployed(lab, tmp_path, environment("two-lb-ubuntu", lab, 2, tmp_path, **addresses))
        assert bastion.port == 6443
        moves(bastion, PROXY_DIES, proxy(bastion, "stop"))
        proxy(bastion, "start")()
        settled(bastion)


# kubeadm


@pytest.mark.slow
@pytest.mark.timing
def test_kubeadm_vip_moves_once_the_script_gets_no_answer_through_the_node(tmp_path: Path) -> None:
    with machines(3) as lab:
        bastion = deployed(lab, tmp_path, environment("kubeadm", lab, 3, tmp_path))
        moves(bastion, PROXY_DIES, proxy(bastion, "stop"))
        proxy(bastion, "start")()
        settled(bastion)


@pytest.mark.slow
def test_kubeadm_vip_stays_where_only_its_own_apiserver_fails_and_exists_where_all_do(tmp_path: Path) -> None:
    with machines(3) as lab:
        bastion = deployed(lab, tmp_path, environment("kubeadm", lab, 3, tmp_path))
        with bastion.watched() as watch:
            lab.apiserver("lb1", "unhealthy")
            bastion.wait_until(lambda: seen_down(bastion, "lb1", "master-1"))
            assert set(hostnames(bastion)) == {"lb2", "lb3"}
        assert (watch.seen.moves, watch.seen.most_holders) == (0, 1)
        before = {node: failures(bastion, node) for node in bastion.nodes}
        for node in bastion.nodes:
            lab.apiserver(node, "off")
        bastion.wait_until(lambda: all(failures(bastion, node) > before[node] for node in before), LIMIT_SECONDS)
        bastion.wait_until(lambda: len(bastion.holders()) == 1)
        for node in bastion.nodes:
            lab.apiserver(node, "ok")
        settled(bastion)


def seen_down(bastion: Bastion, node: str, backend: str) -> bool:
    """Tell whether the proxy of a node has found that a backend is down."""
    words = ["sh", "-c", "echo show stat | socat - /run/haproxy-admin.sock"]
    return any(f",{backend}," in line and ",DOWN," in line for line in bastion.inside(node, *words).splitlines())


def failures(bastion: Bastion, node: str) -> int:
    """Return how often keepalived of a node has found its script to fail after it had succeeded."""
    return bastion.inside(node, "journalctl", "-u", "keepalived", "-o", "cat").count("(check-apiserver) failed")


def hostnames(bastion: Bastion) -> list[str]:
    """Return which apiservers answer ten clients of the VIP."""
    return [answer(bastion, f"https://{bastion.lab.vip}:{bastion.port}/hostname", "-k") for _ in range(10)]


# kubeasz: load balancers beside the cluster, and an ingress


def ingress_nodes(bastion: Bastion, port: int) -> set[str]:
    """Return which nodes answer ten clients of the VIP on a port."""
    url = f"http://{bastion.lab.vip}:{port}/"
    return {json.loads(answer(bastion, url))["node"] for _ in range(10)}


def drill_of_kubeasz(lab: Lab, folder: Path, example: str, warned: frozenset[str] = frozenset()) -> None:
    """Stop the proxy of the holder, and look at everything again; then switch the holder off, and look again."""
    balancers = 2
    addresses = {"APISERVER_IPS": beside(lab, balancers), "INGRESS_NODE_IPS": beside(lab, 3)}
    env = environment(example, lab, balancers, folder, **addresses)
    listeners = load(env).listeners[1:]
    assert [listener.port for listener in listeners] == [80, 443]
    for listener in listeners:
        for node in ("lb4", "lb5"):
            lab.backend(node, listener.backends[0].port)
    bastion = deployed(lab, folder, env, warned)
    for events, do, undo in (
        (PROXY_DIES, proxy(bastion, "stop"), proxy(bastion, "start")),
        (NODE_DIES, lambda: lab.poweroff("lb1"), lambda: lab.boot("lb1")),
    ):
        moves(bastion, events, do)
        assert [ingress_nodes(bastion, listener.port) for listener in listeners] == [{"lb4", "lb5"}] * 2
        undo()
        settled(bastion)


@pytest.mark.slow
@pytest.mark.timing
def test_kubeasz_2_vip_leaves_a_dead_proxy_and_a_node_without_power_and_the_ingress_is_served(tmp_path: Path) -> None:
    with machines(5) as lab:
        drill_of_kubeasz(lab, tmp_path, "kubeasz-2")


@pytest.mark.slow
@pytest.mark.timing
def test_kubeasz_3_with_haproxy_stands_the_same_drill_and_says_what_a_container_cannot(tmp_path: Path) -> None:
    with machines(5) as lab:
        drill_of_kubeasz(lab, tmp_path, "kubeasz-3-l4lb", frozenset({"config.as-asked"}))

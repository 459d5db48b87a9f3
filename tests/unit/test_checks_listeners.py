"""What verify says of the ingress and of extra listeners, and every answer that each check can give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exlb_fab.checks import Verdict, View
from exlb_fab.cluster import LOOPBACK, Backend, Cluster, Listener, Scheme, SendProxy
from exlb_fab.facts import Reply
from exlb_fab.proxies import Load, ProxyState, Server
from exlb_fab.questions import listener_url
from tests.fake import PROXYING
from tests.unit.test_checks import (
    DESIRED,
    EMPTY,
    KUBE,
    LB1,
    LB2,
    LB3,
    OTHER,
    REFUSED,
    RUNNING,
    STOPPED,
    THREE,
    verdict,
    view,
)

TCP = replace(KUBE.check, method="tcp", path="")
TAKEN = Reply(None, "", accepted=True)
LATE = Reply(None, "Operation timed out", accepted=True, late=True)


def listener(scheme: Scheme = "http", send_proxy: SendProxy = "no") -> Listener:
    backend = Backend("w1", "198.51.100.31", 30080)
    return Listener("ingress-node", 80, (backend,), TCP, "source", send_proxy, scheme)


def state(status: str = "UP", *loads: Load) -> ProxyState:
    digest = next(file.digest for file in DESIRED[LB2].files if file.kind == "proxy")
    kube = [Server(KUBE.name, each.name, f"{each.host}:{each.port}", "UP", "L7OK", 200, "") for each in KUBE.backends]
    servers = (*kube, Server("ingress-node", "w1", "198.51.100.31:30080", status, "L4OK", None, ""))
    return ProxyState(digest, servers, loads=loads)


def seen(reply: Reply, web: Listener, status: str = "UP", **more: Any) -> View:
    """Return a view in which every node gets a reply of the listener, by each way."""
    of = replace(THREE, listeners=(KUBE, web))
    found = view(of=of, everywhere={"proxy_state": state(status)}, **more)
    facts = {
        node: replace(each, replies={url: reply if ":80" in url else other for url, other in each.replies.items()})
        for node, each in found.survey.facts.items()
    }
    return replace(found, survey=replace(found.survey, facts=facts))


def own(reply: Reply, web: Listener | None = None, status: str = "UP", **more: Any) -> Verdict:
    return verdict("listener.own", LB2, seen(reply, web or listener(), status, **more))


@pytest.mark.parametrize("name", ["listener.own", "listener.vip"])
def test_without_another_listener_there_is_nothing_to_ask(name: str) -> None:
    found = verdict(name, LB2, view(units={"haproxy": STOPPED, "keepalived": RUNNING}, sockets=()))
    assert (found.status, found.text) == ("pass", "there are none")


@pytest.mark.parametrize("name", ["listener.own", "listener.vip"])
@pytest.mark.parametrize(
    ("reply", "status", "expected"),
    [
        (Reply(404, "", accepted=True), "UP", ("pass", "ingress-node: 404")),
        (Reply(400, "", accepted=True), "UP", ("pass", "ingress-node: 400")),
    ],
)
def test_listener_that_serves_is_a_pass(name: str, reply: Reply, status: str, expected: tuple[str, str]) -> None:
    found = verdict(name, LB2, seen(reply, listener(), status))
    assert (found.status, found.text) == expected


@pytest.mark.parametrize("name", ["listener.own", "listener.vip"])
@pytest.mark.parametrize(("scheme", "reply"), [("tcp", TAKEN), ("https", EMPTY)])
def test_connection_counts_where_clients_may_say_something_else(name: str, scheme: Scheme, reply: Reply) -> None:
    found = verdict(name, LB2, seen(reply, listener(scheme)))
    assert (found.status, found.text) == ("pass", "ingress-node: takes connections")


@pytest.mark.parametrize(("scheme", "reply"), [("http", EMPTY), ("http", LATE), ("https", LATE)])
def test_backends_that_take_a_connection_and_say_nothing_are_red(scheme: Scheme, reply: Reply) -> None:
    found = own(reply, listener(scheme))
    assert (found.status, found.cause) == ("fail", reply.error)
    assert found.text.endswith("takes the connection and does not answer")


@pytest.mark.parametrize(
    ("load", "cause"),
    [
        (Load(9, 9), "haproxy on lb2 has no connection left: 9 of 9"),
        (Load(9, 9, "ingress-node"), "haproxy on lb2 has no connection left: 9 of 9 at ingress-node"),
        (Load(9, 9, KUBE.name), None),
    ],
)
def test_connection_that_the_kernel_takes_for_a_full_proxy_is_red(load: Load, cause: str | None) -> None:
    of = seen(TAKEN, listener("tcp"))
    facts = {**of.survey.facts, LB2: replace(of.facts(LB2), proxy_state=state("UP", load))}
    found = verdict("listener.own", LB2, replace(of, survey=replace(of.survey, facts=facts)))
    assert (found.status, found.cause) == ("fail" if cause else "pass", cause)


def test_node_that_alone_does_not_get_through_to_a_listener_is_not_mended_on_the_holder() -> None:
    url = listener_url(listener(), THREE.vip.address)
    found = view(of=replace(THREE, listeners=(KUBE, listener())))
    facts = {**found.survey.facts, LB2: replace(found.facts(LB2), replies={**found.facts(LB2).replies, url: REFUSED})}
    said = verdict("listener.vip", LB2, replace(found, survey=replace(found.survey, facts=facts)))
    assert said.status == "fail"
    assert "it is on lb2, or between it and lb1" in str(said.cause)
    assert "restart" not in str(said.hint)


def test_listener_is_asked_through_every_vip() -> None:
    of = replace(THREE, listeners=(KUBE, listener()), extra_vips=(OTHER,))
    found = view(of=of)
    url = listener_url(listener(), OTHER.address)
    replies = {node: {**each.replies, url: REFUSED} for node, each in found.survey.facts.items()}
    facts = {node: replace(each, replies=replies[node]) for node, each in found.survey.facts.items()}
    text = verdict("listener.vip", LB2, replace(found, survey=replace(found.survey, facts=facts))).text
    assert text == f"{OTHER}: ingress-node: {url} from lb2: not served"


@pytest.mark.parametrize(
    ("name", "url", "server"),
    [
        ("listener.own", "http://198.51.100.12:80/", "lb2"),
        ("listener.vip", "http://198.51.100.100:80/", "lb1"),
    ],
)
def test_refused_connection_names_the_proxy_that_should_have_taken_it(name: str, url: str, server: str) -> None:
    found = verdict(name, LB2, seen(REFUSED, listener()))
    assert (found.status, found.text) == ("fail", f"ingress-node: {url} from lb2: not served")
    assert (found.cause, found.hint) == (REFUSED.error, f"exlb restart haproxy --nodes {server}")


def test_connection_that_nothing_is_behind_is_red_unless_expected() -> None:
    found = own(TAKEN, status="DOWN")
    assert (found.status, found.hint) == ("fail", "exlb backend list --listener ingress-node")
    assert "no backend to give it to" in str(found.cause)
    assert own(TAKEN, status="DOWN", expect_no_apiserver=True).status == "pass"
    assert own(EMPTY, listener(send_proxy="v2"), "DOWN", expect_no_apiserver=True).status == "pass"


def test_backends_that_answer_with_an_error_are_a_warning() -> None:
    assert own(Reply(502, "", accepted=True)).status == "warn"


@pytest.mark.parametrize("reply", [EMPTY, Reply(400, "", accepted=True)])
def test_backends_that_do_not_read_the_proxy_protocol_are_a_warning_that_names_it(reply: Reply) -> None:
    found = own(reply, listener(send_proxy="v2"))
    assert (found.status, found.cause) == ("warn", "do the backends expect the PROXY protocol (v2)?")


def test_listener_through_the_vip_says_only_what_it_knows_without_one_holder() -> None:
    for holders in ([], [LB1, LB3]):
        assert verdict("listener.vip", LB2, seen(TAKEN, listener("tcp"), "DOWN", holders=holders)).status == "pass"
    assert (
        verdict("listener.vip", LB2, seen(REFUSED, listener(), holders=[])).hint
        == "exlb status shows who holds the VIP"
    )


def test_stopped_proxy_is_no_finding_of_its_listeners() -> None:
    assert own(REFUSED, units={"haproxy": STOPPED, "keepalived": RUNNING}).status == "skip"


def test_worst_listener_counts_and_is_named() -> None:
    db = Listener("db", 5432, (Backend("d", "198.51.100.31", 5432),), TCP, "source")
    of = replace(THREE, listeners=(KUBE, listener(), db))
    url = listener_url(db, LB2.address)
    found = view(of=of)
    facts = found.facts(LB2)
    changed = replace(facts, replies={**facts.replies, url: REFUSED})
    found = replace(found, survey=replace(found.survey, facts={**found.survey.facts, LB2: changed}))
    assert verdict("listener.own", LB2, found).text == f"db: {url} from lb2: not served"
    assert verdict("listener.own", LB1, found).status == "pass"


@pytest.mark.parametrize(
    ("scheme", "path", "url"),
    [
        ("http", "", "http://198.51.100.12:80/"),
        ("https", "/v2/", "https://198.51.100.12:80/v2/"),
        ("tcp", "", "tcp://198.51.100.12:80"),
    ],
)
def test_clients_ask_what_the_listener_speaks(scheme: Scheme, path: str, url: str) -> None:
    web = replace(listener(scheme), check=replace(TCP, path=path))
    assert listener_url(web, LB2.address) == url


def test_listener_that_is_bound_to_the_vip_alone_is_asked_there_and_on_the_loopback() -> None:
    of: Cluster = replace(THREE, listeners=(KUBE, listener()), proxying=replace(PROXYING, bind="vip"))
    assert of.own_address(LB2) == LOOPBACK
    assert verdict("listener.own", LB2, view(of=of)).status == "pass"

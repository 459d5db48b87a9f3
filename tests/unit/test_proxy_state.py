"""What haproxy says of its servers, as 2.6.12 said it: one drained and up, one drained and down, one disabled."""

from __future__ import annotations

import pytest

from exlb_fab.proxies import Load
from exlb_fab.proxies.haproxy import parse_state

STATISTICS = """Name: HAProxy
Version: 2.6.12-1+deb12u4
Pid: 31774
Maxconn: 10000
Hard_maxconn: 10000
CurrConns: 2
CumConns: 17
description: exlb-00112233aabbccdd

# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,\
chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,\
check_code,check_duration,addr,
kube-master,FRONTEND,,,2,2,9984,2,0,0,0,0,0,,,,,OPEN,,,,,,,,,1,2,0,,,,0,0,0,0,,,,,
kube-master,a,0,0,2,2,,2,517,4096,,0,,0,0,0,0,DRAIN,1,1,0,1,1,7,3,,1,2,1,,0,,2,0,,0,L4OK,,0,198.51.100.11:6443,
kube-master,b,0,0,0,0,,0,0,0,,0,,0,0,0,0,DOWN,1,1,0,1,1,20,2,,1,2,2,,0,,2,0,,0,L4CON,,0,198.51.100.12:6443,
web,c,0,0,1,1,,1,0,0,,0,,0,0,0,0,MAINT,1,1,0,,,0,,,1,3,1,,0,,2,0,,0,,,,[2001:db8::3]:80,
web,d,0,0,0,0,,0,0,0,,0,,0,0,0,0,no check,1,1,0,,,3,,,1,3,2,,0,,2,0,,0,,,,198.51.100.14:80,

"""
STATES = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight
2 kube-master 1 a 198.51.100.11 2 8 1 1
2 kube-master 2 b 198.51.100.12 0 8 1 1
3 web 1 c 2001:db8::3 0 1 1 1
3 web 2 d 198.51.100.14 2 32 1 1

leaving 2 198.51.100.11:6443
leaving 1 [2001:db8::3]:80
"""


def test_what_a_server_was_told_does_not_hang_on_how_it_is() -> None:
    servers = parse_state(STATISTICS + STATES).servers
    assert {each.name: (each.status, each.admission, each.takes) for each in servers} == {
        "a": ("DRAIN", "drain", False),
        "b": ("DOWN", "drain", False),
        "c": ("MAINT", "disable", False),
        "d": ("no check", "ready", True),
    }


def test_sessions_bytes_and_the_last_change_are_read() -> None:
    first = parse_state(STATISTICS + STATES).servers[0]
    assert (first.sessions, first.bytes_in, first.bytes_out, first.changed_seconds) == (2, 517, 4096, 7)


def test_connections_and_their_limits_are_those_of_the_process_and_of_its_frontends() -> None:
    state = parse_state(STATISTICS + STATES)
    assert state.loads == (Load(2, 10000), Load(2, 9984, "kube-master"))
    assert [str(each) for each in state.loads] == ["2 of 10000", "2 of 9984 at kube-master"]


@pytest.mark.parametrize(("told", "left"), [("Maxconn: 10000", "Maxconn: 0"), ("CurrConns: 2\n", "")])
def test_limit_that_is_none_or_is_not_told_is_left_out(told: str, left: str) -> None:
    assert parse_state(STATISTICS.replace(told, left) + STATES).loads == (Load(2, 9984, "kube-master"),)


def test_connections_of_old_processes_are_read() -> None:
    assert parse_state(STATISTICS + STATES).leaving == {"198.51.100.11:6443": 2, "[2001:db8::3]:80": 1}


@pytest.mark.parametrize("states", ["", "Unknown command. Please enter one of the following commands only :\n"])
def test_haproxy_before_1_6_shows_it_by_the_status_alone(states: str) -> None:
    state = parse_state(STATISTICS + states)
    assert {each.name: each.admission for each in state.servers} == {
        "a": "drain",
        "b": "ready",
        "c": "disable",
        "d": "ready",
    }
    assert state.leaving == {}


def test_garbage_where_the_states_should_be_tells_nothing() -> None:
    state = parse_state(STATISTICS + "1\n# be_id odd\n2 kube-master\n2 web 1 c - 0 ² 1\nleaving many x\n")
    assert state.servers[3].admission == "ready"
    assert state.leaving == {}

"""What an environment file says of VRRP: versions, times, and what cannot fail over."""

from __future__ import annotations

import pytest

from exlb_fab.commands.config import config
from tests.unit.environments import NODES_V6, Value, cluster, doubts, fault, faults


@pytest.mark.parametrize(
    ("values", "version"),
    [
        ({}, 2),
        ({"ADVERT_INT": "3"}, 2),
        ({"VRRP_VERSION": "3"}, 3),
        ({"ADVERT_INT": "0.5"}, 3),
        ({"ADVERT_INT": "1.5"}, 3),
        ({"TIMING": "fast"}, 3),
        ({"TIMING": "fast", "ADVERT_INT": "1"}, 2),
        ({"TIMING": "documents"}, 2),
        (dict(NODES_V6), 3),
        ({"EXTRA_VIPS": ["2001:db8::20"]}, 2),
        ({"ADVERT_INT": "255"}, 2),
        ({"VRRP_VERSION": "3", "ADVERT_INT": "40.95"}, 3),
    ],
)
def test_the_version_is_the_one_that_the_other_variables_need(values: dict[str, Value], version: int) -> None:
    found = cluster(**values)
    assert found.vrrp.version == version
    assert {setting.name: setting.value for setting in found.settings}["VRRP_VERSION"] == str(version)


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ({}, (1, 1, 2, 2)),
        ({"TIMING": "default"}, (1, 1, 2, 2)),
        ({"TIMING": "documents"}, (3, 5, 1, 1)),
        ({"TIMING": "fast"}, (0.3, 1, 2, 2)),
        (
            {"TIMING": "fast", "ADVERT_INT": "2", "CHECK_INTERVAL": "3", "CHECK_FALL": "4", "CHECK_RISE": "5"},
            (2, 3, 4, 5),
        ),
        ({"TIMING": "documents", "CHECK_FALL": "3"}, (3, 5, 3, 1)),
    ],
)
def test_timing_sets_the_times_that_the_file_does_not(
    values: dict[str, Value], times: tuple[float, int, int, int]
) -> None:
    found = cluster(**values)
    vrrp = found.vrrp
    assert (vrrp.advert_seconds, vrrp.check_interval_seconds, vrrp.check_fall, vrrp.check_rise) == times
    told = {setting.name: setting.value for setting in found.settings}
    names = ("ADVERT_INT", "CHECK_INTERVAL", "CHECK_FALL", "CHECK_RISE")
    assert [told[name] for name in names] == [f"{time:g}" for time in times]


@pytest.mark.parametrize(
    ("values", "failover"),
    [
        ({}, "weighted"),
        ({"PREEMPT": "yes"}, "weighted"),
        ({"PREEMPT": "no"}, "fault"),
        ({"PREEMPT": "no", "FAILOVER": "fault"}, "fault"),
        ({"FAILOVER": "fault"}, "fault"),
    ],
)
def test_without_preemption_a_failed_check_is_a_fault_because_a_weight_would_move_nothing(
    values: dict[str, Value], failover: str
) -> None:
    found = cluster(**values)
    assert (found.vrrp.failover, found.vrrp.preempt) == (failover, "no" not in values.values())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {**NODES_V6, "VRRP_VERSION": "2"},
            "VRRP_VERSION: 2 has no IPv6, and MASTER_VIP is an IPv6 address; write VRRP_VERSION=3",
        ),
        (
            {"ADVERT_INT": "0.5", "VRRP_VERSION": "2"},
            "ADVERT_INT: adverts every 0.5 s need VRRP version 3, and VRRP_VERSION is 2; leave VRRP_VERSION out",
        ),
        (
            {"TIMING": "fast", "VRRP_VERSION": "2"},
            "TIMING: adverts every 0.3 s need VRRP version 3, and VRRP_VERSION is 2; leave VRRP_VERSION out",
        ),
        (
            {"ADVERT_INT": "41", "VRRP_VERSION": "3"},
            "ADVERT_INT: 41 is more than version 3 has; write at most 40.95",
        ),
        (
            {"ADVERT_INT": "40.96"},
            "ADVERT_INT: 40.96 is more than version 3 has; write at most 40.95",
        ),
        *(
            (
                {**values, "AUTH_PASS": password},
                f"AUTH_PASS: VRRP version 3 has no password, and {because}; leave AUTH_PASS out{otherwise}",
            )
            for password in ("k8s-lb", "generate")
            for values, because, otherwise in (
                ({"VRRP_VERSION": "3"}, "VRRP_VERSION is 3", ", or write VRRP_VERSION=2"),
                (NODES_V6, "MASTER_VIP is an IPv6 address, which needs it", ""),
                ({**NODES_V6, "VRRP_VERSION": "3"}, "MASTER_VIP is an IPv6 address, which needs it", ""),
                ({"TIMING": "fast"}, "adverts every 0.3 s need it", ", or write ADVERT_INT=1"),
                (
                    {"ADVERT_INT": "0.5", "VRRP_VERSION": "3"},
                    "adverts every 0.5 s need it",
                    ", or write ADVERT_INT=1 and VRRP_VERSION=2",
                ),
            )
        ),
    ],
)
def test_what_a_version_of_vrrp_does_not_have_is_a_fault(values: dict[str, Value], expected: str) -> None:
    assert fault(**values) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"CHECK_WEIGHT": "-2"},
        {"CHECK_WEIGHT": "-11"},
        {"CHECK_WEIGHT": "2"},
        {"CHECK_WEIGHT": "-30", "PRIORITIES": ["150", "120", "110"]},
    ],
)
def test_a_weight_with_which_a_healthy_node_does_not_win_is_a_fault(values: dict[str, Value]) -> None:
    assert fault(**values).startswith("CHECK_WEIGHT: ")


@pytest.mark.parametrize(
    ("values", "name", "remedy"),
    [
        (
            {"PREEMPT": "no", "FAILOVER": "weighted", "CHECK_WEIGHT": "-60"},
            "FAILOVER",
            "PREEMPT=no wants FAILOVER=fault",
        ),
        (
            {"PREEMPT": "yes", "FAILOVER": "weighted", "PRIORITIES": ["200", "110", "100"]},
            "PRIORITIES",
            "the least weight that is right for these priorities is -101",
        ),
    ],
)
def test_what_cannot_fail_over_is_a_fault_of_the_variable_that_its_remedy_is_about(
    values: dict[str, Value], name: str, remedy: str
) -> None:
    found = fault(**values)
    assert found.startswith(f"{name}: cannot fail over: ")
    assert found.endswith(f"; {remedy}")


@pytest.mark.parametrize(
    "values",
    [
        {"CHECK_WEIGHT": "-16"},
        {"CHECK_WEIGHT": "16"},
        {"CHECK_WEIGHT": "-30", "PRIORITIES": ["120", "110", "109"]},
        {"CHECK_WEIGHT": "-2", "NODE_IPS": ["10.0.0.1"]},
        {"CHECK_WEIGHT": "-2", "FAILOVER": "fault"},
    ],
)
def test_a_weight_above_the_spread_or_one_that_does_not_count_is_none(values: dict[str, Value]) -> None:
    assert cluster(**values).vrrp.check_weight == int(str(values["CHECK_WEIGHT"]))


@pytest.mark.parametrize("name", ["PRIORITIES", "CHECK_WEIGHT", "PREEMPT", "FAILOVER"])
def test_the_law_says_nothing_of_a_variable_that_is_wrong_by_itself(name: str) -> None:
    values: dict[str, Value] = {"PRIORITIES": ["250", "110", "1"], name: ["0"] if name == "PRIORITIES" else "x"}
    assert {line.split(": ")[1] for line in faults(**values)} == {name}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"PRIORITIES": ["120", "110", "110"]},
            [
                "PRIORITIES: equal ones make two nodes take over at once, which costs clients about five seconds; "
                "write falling ones"
            ],
        ),
        (
            {"PRIORITIES": ["110", "120", "109"]},
            ["PRIORITIES: the first of NODE_IPS does not have the highest"],
        ),
        ({"PRIORITIES": ["120", "109", "110"]}, []),
        (
            {"FAILOVER": "fault", "CHECK_WEIGHT": "-60"},
            ["CHECK_WEIGHT: has no effect with FAILOVER=fault"],
        ),
        ({"PREEMPT": "no", "CHECK_WEIGHT": "-60"}, ["CHECK_WEIGHT: has no effect with FAILOVER=fault"]),
        ({"PROCESS_DELAY": "1"}, ["PROCESS_DELAY: has no effect without TRACK=process"]),
        ({"PROCESS_DELAY": "1", "TRACK": "port,process"}, []),
        ({"PROCESS_DELAY": "0"}, []),
        (
            {"GARP_MASTER_REFRESH": "0"},
            ["GARP_MASTER_REFRESH: with 0 a healed partition can cut clients off for most of a minute"],
        ),
        ({"GARP_MASTER_REFRESH": "60"}, []),
        *(
            (
                {"TRACK": "script,apiserver", "HEALTH_CHECK": check},
                [
                    f"TRACK: apiserver asks for /readyz, and HEALTH_CHECK={check} does not: where apiservers answer it "
                    "with 401 (--anonymous-auth=false), every node counts as failed; write port instead of apiserver"
                ],
            )
            for check in ("tcp", "ssl-hello")
        ),
        ({"TRACK": "apiserver", "HEALTH_CHECK": "livez"}, []),
        ({"TRACK": "port", "HEALTH_CHECK": "tcp"}, []),
        (
            {"CHECK_WEIGHT": "150"},
            [
                "CHECK_WEIGHT: several healthy nodes advertise 254, which makes two take over at once and costs "
                "clients about five seconds; write a smaller weight, or lower PRIORITIES"
            ],
        ),
        ({"CHECK_WEIGHT": "134"}, []),
        ({"CHECK_WEIGHT": "150", "NODE_IPS": ["10.0.0.1"]}, []),
    ],
)
def test_what_has_no_effect_or_a_price_is_a_doubt(values: dict[str, Value], expected: list[str]) -> None:
    assert doubts(**values) == expected


@pytest.mark.parametrize("track", ["process", "process,port"])
def test_what_a_dead_proxy_costs_where_events_of_the_kernel_do_not_reach_is_told_as_well(track: str) -> None:
    told = {row.event: row.seconds for row in config(cluster(TRACK=track)).outages}
    script = {row.event: row.seconds for row in config(cluster(TRACK="script")).outages}
    died = "the proxy of the holder dies"
    assert told["the same where a script has to check the process (a container)"] == script[died]
    assert (told[died] or 0) < (script[died] or 0)

"""What a node was before exlb, and the plan that brings it back there and leaves nothing of exlb on it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from exlb_fab import firewall, planning
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import FactsError
from exlb_fab.facts import Facts, Kept, Survey
from exlb_fab.firewall import Directive
from exlb_fab.planning import ADOPTED, Desired, NodePlan, Plan, PlanError, Removal, nothing
from exlb_fab.platforms import KEEPALIVED_PACKAGE, KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES, Proxy

STATE = "/var/lib/exlb"
MARK = f"{STATE}/leaving"
RECORD = f"{STATE}/installed"
OPENED = f"{STATE}/firewall"
FOUND_UNITS = f"{STATE}/generations/{ADOPTED:04d}/units"
ENABLED = ("enabled", "enabled-runtime", "static", "generated", "alias")  # systemctl(1), is-enabled


@dataclass(frozen=True, slots=True)
class Before:
    """What a node was before exlb; of one on which exlb has never been (`touched`), nothing.

    `leaving` tells that a removal has begun, after which only its end is left to do. `found` are the files from before,
    None where exlb never replaced them. `units` are (enabled, active) of those that exlb changed, in systemctl's words.
    `packages` are those that exlb brought, None where nothing has recorded that. `opened` is what it has opened in the
    firewall.
    """

    touched: bool
    leaving: bool = False
    found: Kept | None = None
    units: Mapping[str, tuple[str, str]] | None = None
    packages: tuple[str, ...] | None = None
    opened: tuple[Directive, ...] = ()

    @property
    def idle(self) -> frozenset[str]:
        """Return the units that did not run."""
        return _idle(self.units or {})

    @property
    def disabled(self) -> frozenset[str]:
        """Return the units that did not start at boot."""
        return frozenset(unit for unit, (enabled, _) in (self.units or {}).items() if enabled not in ENABLED)

    def without(self, unit: str) -> Before:
        """Return the same with a unit that must not run any more, however it was found."""
        return replace(self, units={**(self.units or {}), unit: ("disabled", "inactive")})


def questions() -> list[str]:
    """Return what has to be known of a node to bring it back."""
    files = [f"file {path}" for path in (STATE, MARK)]
    # Of the firewall alone what exlb has opened: rules that it does not understand must not keep it on the node.
    return ["history", *files, *(f"read {path}" for path in (RECORD, OPENED, FOUND_UNITS))]


def before(node: Node, found: Facts) -> Before:
    """Return what a node was, by the answers to `questions`.

    Raises PlanError where it cannot be brought back, FactsError where a record of it is not understood.
    """
    if found.files[STATE].absent:
        return Before(touched=False)
    kept = found.history.kept if found.history else ()
    original = next((each for each in kept if each.number == ADOPTED), None)
    leaving = not found.files[MARK].absent
    if kept and original is None and not leaving:
        raise PlanError(f"{node}: generation {ADOPTED}, what was there before exlb, is not kept", hint="exlb history")
    packages, recorded = parse_record(found.texts.get(RECORD, ""))
    # What install has recorded is older than what the first push found.
    units = {**parse_units(found.texts.get(FOUND_UNITS, "")), **recorded}
    brought = packages if RECORD in found.texts else None
    opened = firewall.parse_opened(found.texts.get(OPENED, ""))
    return Before(touched=True, leaving=leaving, found=original, units=units, packages=brought, opened=opened)


def idle_as_found(found: Facts) -> frozenset[str]:
    """Return the units that did not run before the first push, by the answer about FOUND_UNITS. Raises FactsError."""
    return _idle(parse_units(found.texts.get(FOUND_UNITS, "")))


def _idle(units: Mapping[str, tuple[str, str]]) -> frozenset[str]:
    return frozenset(unit for unit, (_, active) in units.items() if active != "active")


def parse_record(text: str) -> tuple[tuple[str, ...], dict[str, tuple[str, str]]]:
    """Parse `package NAME` and `unit NAME ENABLED ACTIVE`, one per line. Raises FactsError."""
    packages = []
    units = {}
    for line in filter(None, text.split("\n")):
        match line.split(" "):
            case ["package", name]:
                packages.append(name)
            case ["unit", name, enabled, active]:
                units[name] = (enabled, active)
            case _:
                raise FactsError(f"{RECORD} is not understood: {line!r}")
    return tuple(packages), units


def parse_units(text: str) -> dict[str, tuple[str, str]]:
    """Parse `UNIT ENABLED ACTIVE`, one per line; ENABLED is empty where there was no such unit. Raises FactsError."""
    units = {}
    for line in filter(None, text.split("\n")):
        words = line.split(" ")
        if len(words) != 3:
            raise FactsError(f"{FOUND_UNITS} is not understood: {line!r}")
        units[words[0]] = (words[1], words[2])
    return units


def plan(
    cluster: Cluster, desired: Mapping[Node, Desired], befores: Mapping[Node, Before], survey: Survey, *, purge: bool
) -> Plan:
    """Plan to bring nodes back to what they were; `desired` are the files of those that still have exlb's.

    First the files, in the order and with the gates of every roll-out; then all that exlb has on the nodes goes.
    Raises PlanError where packages are to go, and exlb does not know by which manager.
    """
    proxy = PROXIES[cluster.proxy]
    made = planning.compared(cluster, desired, survey)
    back = {each.node: each for each in made.nodes}
    nodes = tuple(
        _ended(
            back.get(node) or NodePlan(node, (), nothing(proxy.unit), nothing(KEEPALIVED_UNIT)),
            each,
            survey.facts[node],
            proxy,
            purge=purge,
        )
        for node, each in befores.items()
    )
    touched = {node: each for node, each in befores.items() if each.touched}
    if not touched:
        return replace(made, nodes=nodes)
    notices = (*_farewell(cluster, touched, survey), *made.notices, *_of_packages(nodes, touched, purge=purge))
    return replace(made, nodes=nodes, notices=notices, asks=True)


def _ended(made: NodePlan, was: Before, found: Facts, proxy: Proxy, *, purge: bool) -> NodePlan:
    """Return the plan of a node with what ends exlb there; a unit that has to stop does so with its files."""
    if not was.touched:
        return made
    packages = _packages(was, found, proxy) if purge else ()
    platform = found.system.platform if found.system else None
    if packages and platform is None:
        raise PlanError(f"{made.node}: no package manager that exlb knows", hint="leave --purge out")
    stops = () if made.changes else sorted(unit for unit in was.idle if found.units[unit].running)
    units = (*(("stop", unit) for unit in stops), *(("disable", unit) for unit in sorted(was.disabled)))
    removal = Removal(platform.manager if packages and platform else "", units, packages)
    return replace(made, removal=removal, closes=was.opened, forbids=found.selinux.kept)


def _packages(was: Before, found: Facts, proxy: Proxy) -> tuple[str, ...]:
    """Return the packages that go: those that exlb brought; where nobody knows, those whose unit did not run before."""
    if was.packages is not None:
        return was.packages
    own = {proxy.unit: proxy.packages, KEEPALIVED_UNIT: (KEEPALIVED_PACKAGE,)}
    guessed = [name for unit, names in own.items() if unit in was.idle for name in names]
    return tuple(name for name in guessed if name in found.packages)


def _farewell(cluster: Cluster, befores: Mapping[Node, Before], survey: Survey) -> tuple[str, ...]:
    """Say what cannot be undone, and what is left undone."""
    said = [f"exlb leaves {_names(befores)}: the generations and the journal go too, and nothing can be rolled back"]
    edited = [node for node in befores if survey.facts[node].generations.edited]
    if edited:
        said.append(f"files were edited by hand on {_names(edited)}: that goes as well")
    holders = [node for node in survey.holders(cluster.vip.address) if node in befores]
    staying = [found for node, found in survey.facts.items() if node not in befores]
    if holders and any(found.units[KEEPALIVED_UNIT].running for found in staying):
        said.append(
            f"{_names(holders)} holds {cluster.vip}: it moves to another node, which costs clients about a second, and "
            "ends their open connections"
        )
    if survey.errors:
        each = "each keeps" if len(survey.errors) > 1 else "it keeps"
        said.append(f"{_names(survey.errors)} cannot be asked: {each} what it has, and may hold {cluster.vip}")
    return tuple(said)


def _of_packages(nodes: Collection[NodePlan], befores: Mapping[Node, Before], *, purge: bool) -> tuple[str, ...]:
    """Say which packages go, or stay."""
    going: dict[tuple[str, ...], list[Node]] = {}
    for each in nodes:
        if each.removal and each.removal.packages:
            going.setdefault(each.removal.packages, []).append(each.node)
    notices = [f"from {_names(on)} go: {', '.join(packages)}" for packages, on in going.items()]
    unknown = [node for node, was in befores.items() if was.packages is None and not was.leaving]
    brought = [node for node, was in befores.items() if was.packages]
    if purge and unknown:
        notices.append(
            f"nothing has recorded what exlb installed on {_names(unknown)}: of its packages only the proxy and "
            "keepalived go, and not what ran before exlb"
        )
    if not purge and brought:
        notices.append(
            f"the packages that exlb installed on {_names(brought)} stay: --purge removes them, and nobody knows "
            "afterwards which they were"
        )
    return tuple(notices)


def _names(nodes: Collection[Node]) -> str:
    return ", ".join(map(str, nodes))

"""The nodes and the virtual addresses: who takes part, where, and with which priority."""

from collections.abc import Sequence
from dataclasses import dataclass

from exlb_fab import values, vrrp
from exlb_fab.cluster import Address, Node, Vip, VrrpMode
from exlb_fab.reading import Reading
from exlb_fab.values import is_address, is_dotted, shown
from exlb_fab.variables import MOST_NODES

AUTO = "auto"  # the interface is found on the node


@dataclass(frozen=True, slots=True)
class NodesDraft:
    """What the file says of the nodes and the VIPs, each variable by itself."""

    addresses: tuple[Address, ...]
    names: tuple[str, ...]
    interface: str | None
    interfaces: tuple[str, ...]
    sources: tuple[Address, ...]
    priorities: tuple[int, ...]
    vip: Vip | None
    extra_vips: tuple[Vip, ...]

    @property
    def vips(self) -> tuple[Vip, ...]:
        return (*((self.vip,) if self.vip else ()), *self.extra_vips)

    @property
    def hosts(self) -> frozenset[str]:
        """Return everything by which a node may be called."""
        return frozenset(map(str, self.addresses)) | {name.casefold() for name in self.names}


def read(reading: Reading) -> NodesDraft:
    """Read the variables of the nodes and the VIPs."""
    return NodesDraft(
        addresses=reading.many("NODE_IPS", values.address, same=str),
        names=reading.many("NODE_NAMES", values.node_name, same=str.casefold),
        interface=reading.maybe("VIP_IF", values.interface),
        interfaces=reading.many("NODE_VIP_IFS", values.interface),
        sources=reading.many("VRRP_IPS", values.address, same=str),
        priorities=reading.many("PRIORITIES", values.priority),
        vip=reading.maybe("MASTER_VIP", values.vip),
        extra_vips=reading.many("EXTRA_VIPS", values.vip, same=str),
    )


def compare(draft: NodesDraft, mode: VrrpMode, reading: Reading) -> None:
    """Refuse what these variables contradict each other in."""
    nodes = reading.count("NODE_IPS")
    if nodes is not None and nodes > MOST_NODES:
        reading.fault("NODE_IPS", f"has {nodes} nodes", f"write at most {MOST_NODES}: each needs a priority of its own")
    for name in ("NODE_NAMES", "NODE_VIP_IFS", "VRRP_IPS", "PRIORITIES"):
        reading.refuse_another_length(name, "NODE_IPS")
    _compare_names(draft, reading)
    _compare_vips(draft, reading)
    _compare_families(draft, mode, reading)


def _compare_names(draft: NodesDraft, reading: Reading) -> None:
    """Refuse a name of a node that is an address, unless it is the node's own."""
    # Where elements are missing for their faults, a name's place in the list does not tell its node.
    if (len(draft.names), len(draft.addresses)) != (reading.count("NODE_NAMES"), reading.count("NODE_IPS")):
        return
    for name, address in zip(draft.names, map(str, draft.addresses), strict=False):
        if (is_dotted(name) or is_address(name)) and name != address:
            reading.fault("NODE_NAMES", f"{shown(name)} is not a host name")


def _compare_vips(draft: NodesDraft, reading: Reading) -> None:
    """Refuse a VIP that a node has as its own address, and one that is there twice."""
    for name, vips in (("MASTER_VIP", draft.vips[:1] if draft.vip else ()), ("EXTRA_VIPS", draft.extra_vips)):
        for vip in vips:
            if vip.address in (*draft.addresses, *draft.sources):
                reading.fault(name, f"{vip} is the address of a node", "write an address that no machine has")
    if draft.vip and draft.vip.address in [vip.address for vip in draft.extra_vips]:
        reading.fault("EXTRA_VIPS", f"{draft.vip} is MASTER_VIP already", "write each address only once")


def _compare_families(draft: NodesDraft, mode: VrrpMode, reading: Reading) -> None:
    """Refuse adverts from addresses of another family than the VIP's: keepalived leaves out the VIP then."""
    if draft.vip is None:
        return
    family = draft.vip.address.version
    unicast = mode == "unicast"
    name = "VRRP_IPS" if draft.sources else "NODE_IPS"
    sources = draft.sources or (draft.addresses if unicast else ())
    instead = "VRRP_MODE=multicast" if unicast else "leave the line out"
    other = [str(each) for each in sources if each.version != family]
    if other:
        reading.fault(
            name,
            f"{', '.join(other)}: not of the family of MASTER_VIP (IPv{family}), which adverts are of",
            f"write VRRP_IPS=(ADDRESS ...), the IPv{family} addresses of the nodes, or {instead}",
        )


def nodes(draft: NodesDraft, mode: VrrpMode) -> tuple[Node, ...]:
    """Return the nodes of a draft without faults."""
    assert draft.interface is not None
    names = draft.names or tuple(map(str, draft.addresses))
    interfaces = draft.interfaces or (draft.interface,) * len(names)
    sources: Sequence[Address | None] = draft.sources or draft.addresses
    if mode == "multicast":
        sources = draft.sources or (None,) * len(names)
    rows = zip(names, draft.addresses, interfaces, priorities(draft), sources, strict=True)
    return tuple(
        Node(name, address, None if interface == AUTO else interface, index, priority, source)
        for index, (name, address, interface, priority, source) in enumerate(rows)
    )


def priorities(draft: NodesDraft) -> tuple[int, ...]:
    """Return the priorities of the nodes: those of the file, or else falling ones."""
    return draft.priorities or vrrp.priorities(len(draft.addresses))

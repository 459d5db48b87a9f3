"""Another host on the nodes' network that does harm: run in a network namespace of its own, until it is killed.

    stranger.py advert SOURCE VRID PRIORITY VIP DESTINATION...   send VRRP adverts of version 2, one a second
    stranger.py rare-advert SOURCE VRID ...                      the same, one every three seconds
    stranger.py announce INTERFACE MAC ADDRESS                   say again and again that the address is here (ARP)
    stranger.py answer INTERFACE MAC ADDRESS                     say so to who asks, after everybody else has

Only the standard library. Source: RFC 3768 5 (the advert), RFC 5227 1.2 and RFC 826 (the announcement).
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence

VRRP_PROTOCOL = 112
ADVERT_TTL = 255
ADVERT_SECONDS = 1
RARE_SECONDS = 3  # keepalived waits anew after what it throws away: once a second, and it would never send its own
ANNOUNCE_SECONDS = 0.01  # the holder says so too, every second: a question hardly ever falls between the two
ETHER_ARP = 0x0806
ARP_REQUEST, ARP_REPLY = 1, 2
BROADCAST = b"\xff" * 6


def advert(vrid: int, priority: int, vip: str) -> bytes:
    """Return an advert of version 2 with one address and no password. Source: RFC 3768 5.1."""

    def packet(checksum: int) -> bytes:
        head = struct.pack("!BBBBBBH", 0x21, vrid, priority, 1, 0, ADVERT_SECONDS, checksum)
        return head + socket.inet_aton(vip) + bytes(8)

    return packet(checksum(packet(0)))


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes. Source: RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def announcement(mac: str, address: str) -> bytes:
    """Return an Ethernet frame that tells everybody that a MAC has an address."""
    own, ip = _mac(mac), socket.inet_aton(address)
    # To itself: only what is gratuitous replaces what was said within a second. Linux net/ipv4/arp.c arp_is_garp.
    return _arp(BROADCAST, own, ip, own, ip)


def answer_to(frame: bytes, mac: str, address: str) -> bytes | None:
    """Return the answer to an Ethernet frame that asks who has an address, None to any other."""
    own, ip = _mac(mac), socket.inet_aton(address)
    asker, operation, its_ip = frame[6:12], struct.unpack("!H", frame[20:22])[0], frame[28:32]
    if operation != ARP_REQUEST or frame[38:42] != ip:
        return None
    return _arp(asker, own, ip, asker, its_ip)


def question(mac: str, address: str) -> bytes:
    """Return an Ethernet frame that asks who has an address, for nobody's sake. Source: RFC 5227 2.1.1 (a probe)."""
    own, ip = _mac(mac), socket.inet_aton(address)
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REQUEST) + own + bytes(4) + bytes(6) + ip
    return BROADCAST + own + struct.pack("!H", ETHER_ARP) + request


def is_answer(frame: bytes, address: str) -> bool:
    """Tell whether an Ethernet frame says who has an address."""
    return frame[20:22] == struct.pack("!H", ARP_REPLY) and frame[28:32] == socket.inet_aton(address)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _arp(receiver: bytes, own: bytes, ip: bytes, target: bytes, target_ip: bytes) -> bytes:
    """Return an Ethernet frame with an ARP reply over IPv4. Source: RFC 826."""
    reply = struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REPLY) + own + ip + target + target_ip
    return receiver + own + struct.pack("!H", ETHER_ARP) + reply


def send_adverts(source: str, packet: bytes, destinations: Sequence[str], every_s: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, VRRP_PROTOCOL) as sender:
        sender.bind((source, 0))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ADVERT_TTL)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ADVERT_TTL)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        while True:
            for destination in destinations:
                sender.sendto(packet, (destination, 0))
            time.sleep(every_s)


def announce(interface: str, frame: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        while True:
            sender.send(frame)
            time.sleep(ANNOUNCE_SECONDS)


def answer(interface: str, mac: str, address: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_ARP)) as both:
        both.bind((interface, ETHER_ARP))
        kept = deque[bytes]()
        while True:
            heard = both.recv(2048)
            if found := answer_to(heard, mac, address):
                # Who has it was asked by the other first, and has answered that one by the time it answers us.
                kept.append(found)
                both.send(question(mac, address))
            elif kept and is_answer(heard, address):
                both.send(kept.popleft())


def main(words: Sequence[str]) -> None:
    match words:
        case ["advert" | "rare-advert" as does, source, vrid, priority, vip, *destinations] if destinations:
            every_s = RARE_SECONDS if does == "rare-advert" else ADVERT_SECONDS
            send_adverts(source, advert(int(vrid), int(priority), vip), destinations, every_s)
        case ["announce", interface, mac, address]:
            announce(interface, announcement(mac, address))
        case ["answer", interface, mac, address]:
            answer(interface, mac, address)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

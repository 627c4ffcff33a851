"""Which addresses a stranger may make us connect to: those of the public internet, and no others.

Knows nothing of names: what is judged is the address that a socket will really be connected to.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# IANA's special purposes (https://www.iana.org/assignments/iana-ipv4-special-registry), and one cloud's own.
_CLOSED_4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' own
        "127.0.0.0/8",  # this machine
        "168.63.129.16/32",  # Azure's service for its machines
        "169.254.0.0/16",  # link-local, and metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_OPEN_6 = IPv6Network("2000::/3")  # all that is given out; the rest is local, mapped, multicast or reserved
_CLOSED_6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, with Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
]
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address


def is_public(address: str) -> bool:
    """Whether an address, as a socket says it, belongs to the public internet."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _TRANSLATED else None)
        if inner is None:
            return ip in _OPEN_6 and not any(ip in network for network in _CLOSED_6)
        ip = inner
    return not any(ip in network for network in _CLOSED_4)

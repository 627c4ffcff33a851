"""Only addresses of the public internet are public, in whatever disguise the others come."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsin.media.addresses import is_public


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255",
                                     "100.128.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1",
                                     "::ffff:1.1.1.1", "64:ff9b::101:101"])  # fmt: skip
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.255.255.255", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1",
    "239.255.255.255", "255.255.255.255", "240.0.0.1", "203.0.113.9", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378::", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "fec0::1", "not an address", "",
])  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_no_address_is_public_that_python_knows_as_special(address: ipaddress.IPv4Address) -> None:
    inner = getattr(address, "ipv4_mapped", None)
    if address in ipaddress.ip_network("64:ff9b::/96"):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if is_public(str(address)):
        seen = inner or address
        assert seen.is_global and not seen.is_multicast and not seen.is_reserved

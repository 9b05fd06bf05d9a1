"""The other end of a tunnel, in user space: what is routed to a new TUN device goes, encapsulated, to one address.

The outer headers are the kernel's own, so they owe nothing to what is tested.
Usage: encap.py DEVICE (ip|gue0|gue1) ADDRESS
"""

import fcntl
import os
import socket
import struct
import sys

# <linux/if_tun.h>
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

GUE_PORT = 6080


def main() -> None:
    """Encapsulates until it is ended."""
    device, kind, address = sys.argv[1:]
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocols = {4: socket.IPPROTO_IPIP, 6: socket.IPPROTO_IPV6}
    if kind == "ip":
        outer = {version: socket.socket(family, socket.SOCK_RAW, number) for version, number in protocols.items()}
    else:
        outer = dict.fromkeys(protocols, socket.socket(family, socket.SOCK_DGRAM))
    target = (address, 0 if kind == "ip" else GUE_PORT)
    while True:
        packet = os.read(tunnel, 65535)
        version = packet[0] >> 4
        header = struct.pack("!BBH", 0, protocols[version], 0) if kind == "gue0" else b""
        outer[version].sendto(header + packet, target)


if __name__ == "__main__":
    main()

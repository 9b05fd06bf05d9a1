"""A UDP echo server on every address: answers `NAME payload` from the address that was asked.

Usage: echo.py NAME PORT
"""

import selectors
import socket
import sys

# <linux/in.h>, <linux/in6.h>; Python's socket module does not name them all.
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50


def main() -> None:
    """Serves until it is ended."""
    name, port = sys.argv[1].encode(), int(sys.argv[2])
    ready = selectors.DefaultSelector()
    for family, level, option in (
        (socket.AF_INET, socket.IPPROTO_IP, IP_PKTINFO),
        (socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO),
    ):
        listener = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(level, option, 1)
        listener.bind(("", port))
        ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            answer(key.fileobj, name)


def answer(listener: socket.socket, name: bytes) -> None:
    """Answers one datagram."""
    payload, control, _flags, source = listener.recvmsg(65535, 256)
    reply = []
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            # struct in_pktinfo: interface, local address, destination. An answer names only the local address.
            reply.append((level, kind, bytes(4) + data[8:12] + bytes(4)))
        if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            reply.append((level, kind, data[:16] + bytes(4)))
    listener.sendmsg([name + b" " + payload], reply, 0, source)


if __name__ == "__main__":
    main()

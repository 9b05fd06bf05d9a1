"""Many clients, each with an address of its own, that ask who serves them."""

import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor

from . import plan
from .namespace import Namespace

THREADS = 8
# A SYN that is lost is sent again after a second (RFC 6298), and then after two.
SECONDS = 5
# Clients whose connections have failed, beyond which nobody asks on: who waits for dead nodes does so for hours.
ENOUGH = 20


class Clients:
    """So many clients of one virtual server, whose addresses stand one behind the other."""

    def __init__(self, client: Namespace, vip: plan.Vip, count: int):
        self._client = client
        self._to = (vip.address(4), plan.HTTP_PORT)
        hosts = ipaddress.ip_network(plan.CLIENTS)
        self._addresses = [str(hosts[number]) for number in range(1, count + 1)]
        # All of the prefix is the client's own.
        client.ip([f"route replace local {plan.CLIENTS} dev lo"])
        # By address, every server that has answered it, in order.
        self.served: dict[str, list[str]] = {address: [] for address in self._addresses}
        # Why connections failed, by address.
        self.failures: dict[str, list[str]] = {}

    def connect(self, times: int) -> None:
        """Each client connects so many times, one after the other, and asks for its server's name."""
        shares = [self._addresses[first::THREADS] for first in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda share: self._connect(share, times), shares))

    def _connect(self, addresses: list[str], times: int) -> None:
        request = f"GET / HTTP/1.0\r\nHost: {self._to[0]}\r\n\r\n".encode()
        with self._client.entered():
            for _ in range(times):
                for address in addresses:
                    if len(self.failures) > ENOUGH:
                        return
                    try:
                        self.served[address].append(self._ask(address, request))
                    except OSError as error:
                        self.failures.setdefault(address, []).append(str(error))

    def _ask(self, address: str, request: bytes) -> str:
        with socket.create_connection(self._to, SECONDS, (address, 0)) as connection:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise OSError(f"answered {head[:40]!r}")
        return body.decode().strip()

    def servers(self) -> dict[str, set[str]]:
        """By address, who has answered it."""
        return {address: set(servers) for address, servers in self.served.items()}

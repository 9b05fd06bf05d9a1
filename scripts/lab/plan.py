"""Addresses, MAC addresses, MTUs and names of the laboratory: the one place that decides them.

    client .1 ─┐                                       ┌─ servers s1.. .21..
               ├── br-front 10.10.0.0/24, fd10::/64 ───┤
    VIPs 10.99.0.0/24, fd99::/64 routed to the nodes   └─ nodes n1.. .11..   (SNAT .101..)
                        nodes n1.. .11.. ── br-back 10.20.0.0/24
                        nodes n1.. .11.. ── br-mgmt 10.30.0.0/24, by the kernel
"""

from dataclasses import dataclass

# The client's MTU is what a path over the Internet has. Real servers and nodes take 1500 bytes plus the largest
# encapsulation to a real server (IPv6 40 + UDP 8 + GUE 4), and the backplane takes that plus its own
# encapsulation (IPv6 40 + UDP 8 + header 32), so that nothing has to be cut anywhere.
CLIENT_MTU = 1500
FRONT_MTU = 1600
BACKPLANE_MTU = 1700

FRONT_PREFIX = {4: "10.10.0.0/24", 6: "fd10::/64"}
FRONT_LENGTH = {4: 24, 6: 64}
# Behind the client.
CLIENTS = "10.50.0.0/16"
BACKPLANE_LENGTH = 24
MANAGEMENT_LENGTH = 24
FAMILIES = (4, 6)

HTTP_PORT = 80
# Where nodes take their log's connections and heartbeats.
LOG_PORT = 6601
# Virtual servers that tunnel to a real server of the other family have the same VIP and this port.
CROSS_PORT = 81
UDP_PORT = 9000

CLIENT = 1
NODES = 10
SERVERS = 20
SNAT = 100
# Where nodes probe real servers from.
PROBES = 50


def front(host: int, family: int) -> str:
    """A host's address on the front network; the decimal digits of `host` are the last part in both families."""
    return f"10.10.0.{host}" if family == 4 else f"fd10::{host}"


def backplane(node: int) -> str:
    """Node `node`'s (from 1) address on the backplane."""
    return f"10.20.0.{NODES + node}"


def management(node: int) -> str:
    """Node `node`'s (from 1) address on the management network."""
    return f"10.30.0.{NODES + node}"


def front_mac(host: int) -> str:
    """MAC address of a host on the front network."""
    return f"02:00:0a:0a:00:{host:02x}"


def backplane_mac(node: int) -> str:
    """MAC address of node `node` (from 1) on the backplane."""
    return f"02:00:0a:14:00:{NODES + node:02x}"


def management_mac(node: int) -> str:
    """MAC address of node `node` (from 1) on the management network."""
    return f"02:00:0a:1e:00:{NODES + node:02x}"


@dataclass(frozen=True)
class Vip:
    """A virtual IP address of each family and how what arrives there is forwarded."""

    name: str
    host: int
    forward: str
    group: str = "all"
    # On link of the client, where a node must answer ARP and ND, rather than routed to the nodes.
    flat: bool = False
    # "local": whoever receives a packet handles it, without state.
    ingress: str = "steered"

    def address(self, family: int) -> str:
        """Its address."""
        if self.flat:
            return front(self.host, family)
        return f"10.99.0.{self.host}" if family == 4 else f"fd99::{self.host}"

    def prefix(self, family: int) -> str:
        """Its address as the longest prefix."""
        return f"{self.address(family)}/{32 if family == 4 else 128}"

    def url(self, family: int, path: str = "/", port: int = HTTP_PORT) -> str:
        """A URL at it."""
        return url(self.address(family), path, port)

    @property
    def on_servers(self) -> bool:
        """Whether real servers hold the address themselves: all but NAT."""
        return self.forward != "nat"


VIPS = {
    vip.name: vip
    for vip in (
        Vip("nat", 1, "nat"),
        Vip("dsr", 2, "dsr-l2"),
        Vip("ipip", 3, "ipip"),
        Vip("gue", 4, "gue"),
        Vip("pair", 5, "nat", group="pair"),
        Vip("solo", 6, "dsr-l2", group="solo"),
        Vip("local", 7, "dsr-l2", ingress="local"),
        # In a cluster of three one node answers for both of its addresses.
        Vip("flat", 206, "dsr-l2", flat=True),
    )
}

# Node groups beside the implicit `all`: a partially striped and a spotted virtual server.
GROUPS = {"pair": (1, 2), "solo": (3,)}


def snats(nodes: int) -> list[tuple[int, str, int]]:
    """SNAT addresses as (host, group, node): one a member for each group that has a `nat` virtual server."""
    found = [(SNAT + node, "all", node) for node in range(1, nodes + 1)]
    host = SNAT + 10
    for vip in VIPS.values():
        if vip.forward == "nat" and vip.group != "all":
            for node in GROUPS[vip.group]:
                host += 1
                found.append((host, vip.group, node))
    return found


def endpoint(address: str, port: int) -> str:
    """An address and a port, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def url(address: str, path: str = "/", port: int = HTTP_PORT) -> str:
    """A URL at an address of either family."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}{path}" if port == HTTP_PORT else f"http://{endpoint(address, port)}{path}"

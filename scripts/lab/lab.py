"""The laboratory itself: namespaces, bridges, veths, servers, and their certain end."""

import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

from . import plan
from .errors import LabError
from .namespace import Namespace, names, remove
from .process import Processes, start_time
from .server import LOG_DELAY, Server, write_files

STATE = Path("/run/steerage-lab")
PREFIX = "stg"
TERMINATING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the laboratory to end. (For pytest a KeyboardInterrupt ends the whole run, in order.)"""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        # The exit code that a shell gives for the signal.
        self.code = 128 + number


class Lab:
    """A client, nodes and web servers on two bridges; a context manager.

    It needs root. Everything it made is gone after the block, also when that ends by an exception, SIGINT, SIGTERM
    or SIGHUP. What a killed laboratory left is removed when the next one starts.
    """

    client: Namespace
    switch: Namespace
    nodes: list[Namespace]
    servers: list[Server]

    def __init__(self, nodes: int = 3, servers: int = 4, decapsulate: Path | None = None):
        """`decapsulate`: an XDP object file that the servers attach, for tunnels."""
        self._counts = (nodes, servers)
        self._decapsulate = decapsulate
        self.prefix = f"{PREFIX}{os.getpid()}"
        self.directory = STATE / str(os.getpid())
        self.processes = Processes()
        self._namespaces: list[Namespace] = []
        self._handlers: dict[int, object] = {}

    def node(self, number: int) -> Namespace:
        """Node `number`, from 1."""
        return self.nodes[number - 1]

    def server(self, number: int) -> Server:
        """Server `number`, from 1."""
        return self.servers[number - 1]

    def requests(self) -> dict[str, int]:
        """How many HTTP requests each server has answered so far, by name; waits until all are in the logs."""
        time.sleep(2 * LOG_DELAY)
        return {server.name: server.requests() for server in self.servers}

    def __enter__(self) -> "Lab":
        if os.geteuid() != 0:
            raise LabError("the laboratory needs root: it makes network namespaces")
        remove_leftovers()
        if self.directory.exists():
            raise LabError("this process has a laboratory already")
        self._catch_signals()
        try:
            self.directory.mkdir(parents=True)
            # nginx workers run as another user and serve files from here.
            self.directory.chmod(0o755)
            (self.directory / "owner").write_text(start_time(os.getpid()) or "")
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process and removes every namespace and file; harmless when done before."""
        main = threading.current_thread() is threading.main_thread()
        # A second Ctrl-C must not stop the cleaning.
        if main:
            for number in TERMINATING:
                signal.signal(number, signal.SIG_IGN)
        try:
            self.processes.stop()
            for namespace in reversed(self._namespaces):
                remove(namespace.name)
            self._namespaces.clear()
            shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            if main:
                for number in TERMINATING:
                    signal.signal(number, self._handlers.get(number, signal.SIG_DFL))

    def _catch_signals(self) -> None:
        def interrupt(number: int, _frame: object) -> None:
            raise Interrupted(number)

        if threading.current_thread() is threading.main_thread():
            for number in TERMINATING:
                self._handlers[number] = signal.signal(number, interrupt)

    def _namespace(self, name: str) -> Namespace:
        directory = self.directory / name
        directory.mkdir()
        directory.chmod(0o755)
        full = f"{self.prefix}-{name}"
        try:
            namespace = Namespace(full, directory, self.processes)
        except BaseException:
            # It may have come into being before the exception.
            if full in names():
                remove(full)
            raise
        self._namespaces.append(namespace)
        return namespace

    def _build(self) -> None:
        nodes, servers = self._counts
        self.switch = self._namespace("sw")
        self.switch.sysctl({"ipv6.conf.default.disable_ipv6": 1, "ipv6.conf.all.disable_ipv6": 1})
        # Without spanning tree and snooping a bridge forwards from the first moment, ND multicast included.
        bridge = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        self.switch.ip([
            f"link add br-front mtu {plan.FRONT_MTU} {bridge}",
            f"link add br-back mtu {plan.BACKPLANE_MTU} {bridge}",
            f"link add br-mgmt {bridge}",
            "link set br-front up",
            "link set br-back up",
            "link set br-mgmt up",
        ])
        self.client = self._namespace("client")
        self._endpoint(self.client, "client", plan.CLIENT, plan.CLIENT_MTU)
        self.client.sysctl({
            "ipv4.fib_multipath_hash_policy": 1,
            "ipv6.fib_multipath_hash_policy": 1,
            "ipv4.ip_local_port_range": "1024 65535",
        })
        self.nodes = [self._node(number) for number in range(1, nodes + 1)]
        self._nexthops()
        write_files(self.directory / "files")
        self.servers = [self._server(number) for number in range(1, servers + 1)]
        for server in self.servers:
            server.wait()

    def _link(self, namespace: Namespace, device: str, peer: str, bridge: str, mac: str, mtu: int) -> None:
        self.switch.ip([
            f"link add {peer} mtu {mtu} type veth peer name {device} netns {namespace.name} address {mac} mtu {mtu}",
            f"link set {peer} master {bridge} up",
        ])

    def _endpoint(self, namespace: Namespace, peer: str, host: int, mtu: int) -> None:
        namespace.sysctl({
            "ipv4.conf.all.rp_filter": 0,
            "ipv4.conf.default.rp_filter": 0,
            "ipv6.conf.all.accept_dad": 0,
            "ipv6.conf.default.accept_dad": 0,
            "ipv6.conf.default.accept_ra": 0,
            "ipv4.tcp_max_tw_buckets": 500,
            "core.somaxconn": 4096,
        })
        self._link(namespace, "eth0", peer, "br-front", plan.front_mac(host), mtu)
        # A user-space node sees frames as they stand: a checksum left for a device to fill in would be wrong.
        namespace.run(["ethtool", "-K", "eth0", "tx", "off"])
        namespace.ip(
            [f"addr add {plan.front(host, 4)}/{plan.FRONT_LENGTH[4]} dev eth0"]
            + [f"addr add {plan.front(host, 6)}/{plan.FRONT_LENGTH[6]} dev eth0 nodad"]
            + ["link set eth0 up"]
        )

    def _node(self, number: int) -> Namespace:
        namespace = self._namespace(f"n{number}")
        namespace.sysctl({"ipv6.conf.default.disable_ipv6": 1, "ipv6.conf.all.disable_ipv6": 1})
        host = plan.NODES + number
        self._link(namespace, "front", f"n{number}f", "br-front", plan.front_mac(host), plan.FRONT_MTU)
        self._link(namespace, "back", f"n{number}b", "br-back", plan.backplane_mac(number), plan.BACKPLANE_MTU)
        namespace.ip(["link set front arp off up", "link set back arp off up"])
        self._link(namespace, "mgmt", f"n{number}m", "br-mgmt", plan.management_mac(number), 1500)
        # Probes leave through the kernel, by an interface of its own.
        self._link(namespace, "probe", f"n{number}p", "br-front", plan.front_mac(plan.PROBES + number), plan.FRONT_MTU)
        namespace.sysctl({"ipv6.conf.probe.disable_ipv6": 0, "ipv6.conf.probe.accept_dad": 0})
        namespace.ip(
            [f"addr add {plan.front(plan.PROBES + number, 4)}/{plan.FRONT_LENGTH[4]} dev probe"]
            + [f"addr add {plan.front(plan.PROBES + number, 6)}/{plan.FRONT_LENGTH[6]} dev probe nodad"]
            + ["link set probe up"]
        )
        namespace.ip([f"addr add {plan.management(number)}/{plan.MANAGEMENT_LENGTH} dev mgmt", "link set mgmt up"])
        return namespace

    def _server(self, number: int) -> Server:
        name = f"s{number}"
        namespace = self._namespace(name)
        self._endpoint(namespace, name, plan.SERVERS + number, plan.FRONT_MTU)
        # Real servers hold the VIPs but must not answer for them: ARP is answered for addresses of the interface only.
        namespace.sysctl({"ipv4.conf.all.arp_ignore": 1, "ipv4.conf.all.arp_announce": 2})
        lines = []
        for vip in plan.VIPS.values():
            if vip.on_servers:
                lines.append(f"addr add {vip.prefix(4)} dev lo")
                lines.append(f"addr add {vip.prefix(6)} dev lo nodad preferred_lft 0")
        namespace.ip(lines)
        if self._decapsulate is not None:
            namespace.ip([f"link set eth0 xdpdrv obj {self._decapsulate} sec xdp"])
        return Server(name, namespace, self.directory / "files")

    def _nexthops(self) -> None:
        lines = []
        for family in plan.FAMILIES:
            ids = [_nexthop(family, number) for number in range(1, len(self.nodes) + 1)]
            for number, identity in enumerate(ids, 1):
                lines.append(f"nexthop add id {identity} via {plan.front(plan.NODES + number, family)} dev eth0")
            lines.append(f"nexthop add id {_nexthop(family, 0)} group {'/'.join(map(str, ids))}")
        self.client.ip(lines)
        for vip in plan.VIPS.values():
            if not vip.flat:
                self.route(vip)

    def route(self, vip: plan.Vip, node: int = 0) -> None:
        """Routes a VIP from the client to one node (from 1), or (0) over all of them by a hash of the ports as well."""
        self.client.ip([f"route replace {vip.prefix(family)} nhid {_nexthop(family, node)}" for family in plan.FAMILIES])

    def isolate(self, number: int, cut: bool = True, management: bool = True) -> None:
        """Cuts node `number` (from 1) off from the other nodes, on the backplane and the management network; or no more."""
        state = "down" if cut else "up"
        self.switch.ip([f"link set n{number}{port} {state}" for port in ("b", "m")[: 1 + management]])

    def unplug(self, server: int, out: bool = True) -> None:
        """Pulls the plug of a server (from 1), or puts it in again."""
        self.switch.ip([f"link set s{server} {'down' if out else 'up'}"])

    def deal(self, nodes: list[int]) -> None:
        """Deals what is routed over all nodes to these (from 1), in this order: each flow's hash gives its place in the list.
        Another order of the same nodes is what a router does that salts its hash anew."""
        self.client.ip([
            f"nexthop replace id {_nexthop(family, 0)} group {'/'.join(str(_nexthop(family, n)) for n in nodes)}"
            for family in plan.FAMILIES
        ])

    def route_to_server(self, vip: plan.Vip, server: int) -> None:
        """Routes a VIP from the client to a server (from 1) and past all nodes."""
        self.client.ip([
            f"route replace {vip.prefix(family)} via {plan.front(plan.SERVERS + server, family)} dev eth0"
            for family in plan.FAMILIES
        ])


def _nexthop(family: int, node: int) -> int:
    """Id of the client's next hop to a node, or (0) to the group of all."""
    return family * 100 + node


def remove_leftovers() -> list[str]:
    """Removes namespaces, processes and files of laboratories whose process is gone; returns the namespaces' names."""
    removed = []
    for name in names():
        found = re.match(rf"{PREFIX}(\d+)-", name)
        if found and _gone(int(found[1])):
            remove(name)
            removed.append(name)
    for directory in STATE.glob("*"):
        if directory.name.isdecimal() and _gone(int(directory.name)):
            shutil.rmtree(directory, ignore_errors=True)
    return removed


def _gone(pid: int) -> bool:
    started = start_time(pid)
    try:
        recorded = (STATE / str(pid) / "owner").read_text()
    except FileNotFoundError:
        recorded = started
    # The number may belong to a younger process by now.
    return started is None or started != recorded

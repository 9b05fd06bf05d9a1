"""Real traffic through three nodes: every way of forwarding, both families, groups, steering, ARP, ND and ping."""

import contextlib
import socket
import time

import pytest
from lab import Cluster, Lab, LabError, build, hugepages, load, plan
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from waiting import until

SOCKETS = {4: socket.AF_INET, 6: socket.AF_INET6}
# Virtual server names as in the cluster file without the family, with their port. Real servers of the "cross" ones are of
# the other family than the VIP.
HTTP = {name: (plan.VIPS[name], plan.HTTP_PORT) for name in ("nat", "dsr", "ipip", "gue")} | {
    f"{name}-cross": (plan.VIPS[name], plan.CROSS_PORT) for name in ("ipip", "gue")
}
families = pytest.mark.parametrize("family", plan.FAMILIES)


@pytest.fixture(scope="module")
def lab(decapsulator):
    with Lab(decapsulate=decapsulator) as made:
        yield made


@pytest.fixture(scope="module")
def running(lab):
    """A function that gives the running nodes with the settings asked for, and restarts them only if they differ."""
    binary = build.product()
    current: dict = {}
    # Nodes that can't start would otherwise cost every test the whole wait.
    broken: dict[bool, str] = {}

    def nodes(steering_cache: bool = True) -> Cluster:
        if steering_cache in broken:
            raise LabError(broken[steering_cache])
        if current.get("cache") is not steering_cache:
            stop()
            try:
                cluster = Cluster(lab, binary, hugepages=pages, steering_cache=steering_cache).__enter__()
            except LabError as error:
                broken[steering_cache] = str(error)
                raise
            current.update(cache=steering_cache, nodes=cluster)
        return current["nodes"]

    def stop() -> list[int]:
        found = current["nodes"].stop() if current else []
        current.clear()
        return found

    nodes.stop = stop
    with hugepages.reserved() as pages:
        try:
            yield nodes
        finally:
            stop()


@pytest.fixture
def nodes(running):
    return running()


@pytest.fixture(autouse=True)
def everywhere(lab):
    """Each test begins with every VIP spread over all nodes."""
    for vip in plan.VIPS.values():
        if not vip.flat:
            lab.route(vip)


@contextlib.contextmanager
def connections(lab, vip: plan.Vip, family: int, count: int, port: int = plan.HTTP_PORT):
    """Open connections that have each been answered once; gives the names of the servers that answered."""
    answered = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with lab.client.entered():
                one = stack.enter_context(socket.socket(SOCKETS[family], socket.SOCK_STREAM))
            one.settimeout(5)
            one.connect((vip.address(family), port))
            one.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            text = b""
            while b"\r\n\r\ns" not in text or not text.endswith(b"\n"):
                part = one.recv(4096)
                assert part, f"closed after {text!r}"
                text += part
            assert text.startswith(b"HTTP/1.1 200 ")
            answered.append(text.rsplit(b"\r\n\r\n", 1)[1].decode().strip())
        yield answered


def sessions(nodes: Cluster, name: str) -> list[int]:
    """How many sessions of a virtual server each node holds."""
    return [nodes.virtual_server(number, name)["sessions"] for number in range(1, len(nodes.names) + 1)]


# Forwarding


@families
@pytest.mark.parametrize("name", HTTP)
def test_files_arrive_whole(lab, nodes, name, family):
    vip, port = HTTP[name]
    for file in load.FILES:
        for _ in range(1 if file == "10m" else 5):
            assert load.Download(lab.client, vip.url(family, port=port), file).result().failures == {}


@families
@pytest.mark.parametrize("name", HTTP)
def test_uploads_of_full_segments_arrive(lab, nodes, name, family):
    """The client's segments are as long as its MTU allows, so encapsulation needs what the nodes' MTU has beyond."""
    vip, port = HTTP[name]
    file = lab.directory / "files" / "100k"
    argv = ["curl", "-gsS", "--fail", "--max-time", "5", "--data-binary", f"@{file}", vip.url(family, port=port)]
    assert lab.client.run(argv).stdout.strip() in {server.name for server in lab.servers}


@families
@pytest.mark.parametrize("name", HTTP)
def test_every_server_gets_connections(lab, nodes, name, family):
    vip, port = HTTP[name]
    with connections(lab, vip, family, 80, port) as answered:
        # 80 draws among four miss one of them in 1 of 2.5 billion runs.
        assert set(answered) == {"s1", "s2", "s3", "s4"}


@families
@pytest.mark.parametrize("name", ["nat", "dsr", "ipip", "gue"])
def test_datagrams_are_answered(lab, nodes, name, family):
    vip = plan.VIPS[name]
    for _ in range(5):
        with lab.client.entered(), socket.socket(SOCKETS[family], socket.SOCK_DGRAM) as asker:
            asker.connect((vip.address(family), plan.UDP_PORT))
            servers = {ask(asker, b"%d" % number) for number in range(5)}
        # A flow stays with its server.
        assert len(servers) == 1


def ask(asker: socket.socket, payload: bytes) -> bytes:
    """Sends a datagram and returns the name of the server that echoed it; a lost one is repeated twice."""
    for attempt in range(3):
        asker.settimeout(0.5)
        asker.send(payload)
        with contextlib.suppress(TimeoutError):
            name, _, echoed = asker.recv(2000).partition(b" ")
            assert echoed == payload
            return name
    raise AssertionError("three datagrams in a row got no answer")


def test_no_request_fails_under_load_and_all_nodes_steer(lab, nodes):
    before = nodes.totals()
    targets = [plan.VIPS[name].url(family) for name in ("nat", "dsr") for family in plan.FAMILIES]
    for keepalive in (True, False):
        found = load.run(lab.client, targets, 2, 8, keepalive)
        assert found.failures == {} and found.requests > 500
    for old, new in zip(before, nodes.totals()):
        assert new["steered_out"] > old["steered_out"] and new["steered_in"] > old["steered_in"]


# Groups


@families
@pytest.mark.parametrize("entry", [1, 2, 3])
@pytest.mark.parametrize(("name", "members"), [("nat", {1, 2, 3}), ("pair", {1, 2}), ("solo", {3})])
def test_a_group_serves_wherever_requests_enter(lab, nodes, name, members, entry, family):
    vip = plan.VIPS[name]
    lab.route(vip, node=entry)
    server = f"{name}-v{family}"
    before = nodes.stats(entry)["totals"]["steered_out"]
    with connections(lab, vip, family, 60):
        held = until(lambda: sum(found := sessions(nodes, server)) >= 60 and found, f"60 sessions of {server}")
    for number, count in enumerate(held, 1):
        if number in members:
            # 60 flows fall to one of at most three members always, and to each but in 1 of 10 billion runs.
            assert count > 0, f"member n{number} holds no session of {server}: {held}"
        else:
            assert count == 0, f"n{number} is no member and holds sessions of {server}: {held}"
    if members != {entry}:
        until(lambda: nodes.stats(entry)["totals"]["steered_out"] > before, f"n{entry} steers to others")


# Steering sessions


@families
@pytest.mark.parametrize(("cache", "hashed", "hits"), [(True, 1, 99), (False, 100, 0)], ids=["cached", "control: not cached"])
def test_a_steered_flow_is_hashed_once(lab, running, family, cache, hashed, hits):
    nodes = running(steering_cache=cache)
    vip = plan.VIPS["solo"]
    # Enters at n1 and belongs to n3, the only member.
    lab.route(vip, node=1)

    def open_flow() -> socket.socket:
        with lab.client.entered():
            flow = socket.socket(SOCKETS[family], socket.SOCK_DGRAM)
        flow.connect((vip.address(family), plan.UDP_PORT))
        return flow

    with open_flow() as other:
        # Next hops are resolved from here on; and its counters are published before the count begins.
        ask(other, b"first")
    time.sleep(0.5)
    before = nodes.totals()
    with open_flow() as flow:
        flow.settimeout(2)
        for number in range(100):
            flow.send(b"%d" % number)
            assert flow.recv(2000).endswith(b" %d" % number)

    def grown(node: int, key: str) -> int:
        return nodes.totals()[node - 1][key] - before[node - 1][key]

    until(lambda: grown(1, "steered_out") >= 100, "100 packets are steered")
    time.sleep(0.2)
    assert (grown(1, "steered_out"), grown(3, "steered_in")) == (100, 100)
    assert (grown(1, "hashed"), grown(1, "steering_hits")) == (hashed, hits)


# The VIP as an address


def replies(lab, request: bytes, answer, seconds: float = 1.5) -> list:
    """Sends a frame from the client, and returns what `answer` makes of each frame that comes (None: not an answer)."""
    found = []
    with lab.client.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))  # ETH_P_ALL
        wire.bind(("eth0", 0x0003))
    with wire:
        wire.send(request)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            wire.settimeout(left)
            with contextlib.suppress(TimeoutError):
                frame = answer(Ether(wire.recv(2000)))
                if frame is not None:
                    found.append(frame)
    return found


NODE_MACS = {plan.front_mac(plan.NODES + number) for number in (1, 2, 3)}
CLIENT_MAC = plan.front_mac(plan.CLIENT)


def test_one_node_answers_arp_for_a_vip_on_link(lab, nodes):
    address = plan.VIPS["flat"].address(4)
    request = Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
        hwsrc=CLIENT_MAC, psrc=plan.front(plan.CLIENT, 4), pdst=address
    )

    def answer(frame):
        if frame.haslayer(ARP) and frame[ARP].op == 2 and frame[ARP].psrc == address:
            return frame[ARP].hwsrc
        return None

    found = replies(lab, bytes(request), answer)
    assert len(found) == 1 and found[0] in NODE_MACS


def test_one_node_answers_neighbour_solicitations_for_a_vip_on_link(lab, nodes):
    address = plan.VIPS["flat"].address(6)
    last = socket.inet_pton(socket.AF_INET6, address)[-3:]
    # RFC 4291 §2.7.1: the solicited-node multicast address; RFC 2464 §7: its MAC address.
    group = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + last)
    mac = "33:33:ff:" + ":".join(f"{byte:02x}" for byte in last)
    request = (
        Ether(src=CLIENT_MAC, dst=mac)
        / IPv6(src=plan.front(plan.CLIENT, 6), dst=group, hlim=255)
        / ICMPv6ND_NS(tgt=address)
        / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT_MAC)
    )

    def answer(frame):
        # What a node announces by itself in its first seconds is no answer.
        if frame.haslayer(ICMPv6ND_NA) and frame[ICMPv6ND_NA].tgt == address and frame[ICMPv6ND_NA].S:
            return frame.src
        return None

    found = replies(lab, bytes(request), answer)
    assert len(found) == 1 and found[0] in NODE_MACS


@families
def test_a_vip_on_link_serves(lab, nodes, family):
    assert load.Download(lab.client, plan.VIPS["flat"].url(family), "100k").result().failures == {}


@families
@pytest.mark.parametrize("entry", [1, 2, 3])
@pytest.mark.parametrize("name", ["nat", "dsr", "solo"])
def test_a_vip_answers_ping(lab, nodes, name, entry, family):
    vip = plan.VIPS[name]
    lab.route(vip, node=entry)
    protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    with lab.client.entered():
        pinger = socket.socket(SOCKETS[family], socket.SOCK_RAW, protocol)
    identity = 0x5700 + entry
    with pinger:
        pinger.connect((vip.address(family), 0))
        for sequence in range(4):
            payload = b"%d of four, and some more" % sequence
            # RFC 792, RFC 4443 §4.2: an echo reply has the identifier, sequence number and data of its request.
            wanted = identity.to_bytes(2, "big") + sequence.to_bytes(2, "big") + payload
            # The kernel fills in the checksum of ICMPv6 only.
            request = bytes(ICMP(id=identity, seq=sequence) / Raw(payload)) if family == 4 else bytes([128, 0, 0, 0]) + wanted
            pinger.send(request)
            end = time.monotonic() + 1
            while True:
                pinger.settimeout(max(0.001, end - time.monotonic()))
                packet = pinger.recv(2000)
                message = packet[(packet[0] & 15) * 4 :] if family == 4 else packet
                if message[0] == (0 if family == 4 else 129) and message[4:] == wanted:
                    break


# The end


def test_nodes_end_cleanly_on_sigterm_and_start_again(lab, running):
    running()
    assert running.stop() == [0, 0, 0]
    running()
    for family in plan.FAMILIES:
        assert load.Download(lab.client, plan.VIPS["nat"].url(family), "100k").result().failures == {}

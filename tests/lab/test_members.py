"""Nodes that decide together: they begin a cluster, one is killed and returns, and what it served goes on elsewhere."""

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import Cluster, Lab, LabError, build, hugepages, kills, load, plan
from lab.asker import Asker
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from waiting import until


@pytest.fixture
def plant():
    """No fault is planted, unless a test says which."""
    return None


@pytest.fixture
def cluster(plant):
    binary = build.breakable() if plant else build.product()
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, binary, pages, log=True, plant=plant) as nodes:
        yield lab, nodes


def arp_question(address: str) -> bytes:
    """Who has this address of IPv4?"""
    mac = plan.front_mac(plan.CLIENT)
    return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=mac, psrc=plan.front(plan.CLIENT, 4), pdst=address))


def nd_question(address: str) -> bytes:
    """Who has this address of IPv6? (RFC 4861 §4.3)"""
    last = socket.inet_pton(socket.AF_INET6, address)[-3:]
    # RFC 4291 §2.7.1: the solicited-node multicast address; RFC 2464 §7: its Ethernet address.
    group = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + last)
    mac = plan.front_mac(plan.CLIENT)
    ether = Ether(src=mac, dst="33:33:ff:" + ":".join(f"{byte:02x}" for byte in last))
    ip = IPv6(src=plan.front(plan.CLIENT, 6), dst=group, hlim=255)
    return bytes(ether / ip / ICMPv6ND_NS(tgt=address) / ICMPv6NDOptSrcLLAddr(lladdr=mac))


class OwnerAsker(threading.Thread):
    """Asks for the Ethernet address of a VIP on link every few milliseconds, and notes who says that it's his, and when."""

    def __init__(self, lab, vip: plan.Vip, family: int):
        super().__init__(daemon=True)
        self._address = vip.address(family)
        self._request = {4: arp_question, 6: nd_question}[family](self._address)
        kind = {4: 0x0806, 6: 0x86DD}[family]  # ETH_P_ARP, ETH_P_IPV6
        with lab.client.entered():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            self._wire.bind(("eth0", kind))
        self._wire.settimeout(0.01)
        self._end = threading.Event()
        self.answers: list[tuple[float, str]] = []

    def run(self) -> None:
        due = 0.0
        while not self._end.is_set():
            now = time.monotonic()
            if now >= due:
                self._wire.send(self._request)
                due = now + 0.02
            try:
                frame = Ether(self._wire.recv(2000))
            except TimeoutError:
                continue
            # Those that nobody asked for claim it, too.
            if ARP in frame and frame[ARP].psrc == self._address and frame.src != plan.front_mac(plan.CLIENT):
                self.answers.append((time.monotonic(), frame[ARP].hwsrc))
            elif ICMPv6ND_NA in frame and frame[ICMPv6ND_NA].tgt == self._address:
                self.answers.append((time.monotonic(), frame[ICMPv6NDOptDstLLAddr].lladdr))

    def stop(self) -> None:
        """Asks no more."""
        self._end.set()
        self.join()
        self._wire.close()

    def owner(self) -> int:
        """Number of the node, from 1, that has answered last."""
        macs = {plan.front_mac(plan.NODES + number): number for number in (1, 2, 3)}
        return macs[self.answers[-1][1]]

    def reigns(self) -> list[tuple[str, float, float]]:
        """Who has answered from when to when, in order; of two who answer by turns each has several."""
        found: list[tuple[str, float, float]] = []
        for at, mac in self.answers:
            if found and found[-1][0] == mac:
                found[-1] = (mac, found[-1][1], at)
            else:
                found.append((mac, at, at))
        return found


def test_an_isolated_node_gives_its_vip_up_before_another_takes_it(cluster):
    lab, _ = cluster
    askers = [OwnerAsker(lab, plan.VIPS["flat"], family) for family in plan.FAMILIES]
    for asker in askers:
        asker.start()
    time.sleep(1)
    owner = askers[0].owner()
    assert askers[1].owner() == owner, "see the plan"
    cut = time.monotonic()
    lab.isolate(owner)
    time.sleep(3)
    assert owner not in [asker.owner() for asker in askers]
    healed = time.monotonic()
    lab.isolate(owner, cut=False)
    time.sleep(4)
    for asker in askers:
        asker.stop()
        reigns = asker.reigns()
        # The first, another, and the first again once it is back; nobody twice, so no two at a time.
        assert len(reigns) == 3 and reigns[0][0] == reigns[2][0] == plan.front_mac(plan.NODES + owner), reigns
        lease = 0.35
        assert reigns[0][2] < cut + lease + 0.1, "it answered without a lease"
        assert reigns[1][1] < cut + 1.5, "the VIP was nobody's for long"
        assert reigns[2][1] > healed


@pytest.mark.parametrize("plant", ["lease-unchecked"])
def test_control_an_isolated_node_without_leases_answers_beside_the_next_owner(cluster):
    lab, _ = cluster
    asker = OwnerAsker(lab, plan.VIPS["flat"], 4)
    asker.start()
    time.sleep(1)
    owner = asker.owner()
    lab.isolate(owner)
    time.sleep(2)
    asker.stop()
    reigns = asker.reigns()
    assert {mac for mac, _, _ in reigns} > {plan.front_mac(plan.NODES + owner)} and len(reigns) > 10, reigns


def test_a_node_without_a_backplane_is_taken_out_and_comes_back(cluster):
    lab, nodes = cluster
    vip = plan.VIPS["dsr"]
    lab.route(vip, node=1)
    time.sleep(1)
    asker = Asker(lab.client, vip)
    asker.start()
    time.sleep(1)
    cut = time.monotonic()
    lab.isolate(3, management=False)
    time.sleep(3)
    assert not nodes.stats(3)["ready"]
    healed = time.monotonic()
    lab.isolate(3, cut=False, management=False)
    nodes.wait_ready()
    time.sleep(2)
    asker.stop()
    assert [at for at in asker.missed if at < cut - 0.05] == []
    assert [round(at - cut, 2) for at in asker.missed if at > cut + 1.5] == []
    assert time.monotonic() > healed


def test_without_a_majority_what_needs_no_state_is_served(cluster):
    lab, nodes = cluster
    vip = plan.VIPS["local"]
    lab.route(vip, node=1)
    nodes.admin(1, ["set", "profile/early", "idle=5m"])
    nodes.kill(2)
    nodes.kill(3)
    time.sleep(2)
    asker = Asker(lab.client, vip)
    asker.start()
    time.sleep(3)
    asker.stop()
    assert len(asker.asked) > 200 and len(asker.missed) <= len(asker.asked) / 100
    assert not nodes.stats(1)["ready"], "it has no lease"
    why = "a majority of the voters is out of reach"
    status, refused = nodes.rest(1, "PUT", "/v1/objects/profile/late", '{"idle": "5m"}')
    assert status == 503 and why in refused["error"], refused
    with pytest.raises(LabError, match=why):
        nodes.admin(1, ["set", "profile/late", "idle=5m"])
    # Reading goes on, and says that nothing was written.
    assert nodes.rest(1, "GET", "/v1/objects/profile/late")[0] == 404
    assert nodes.admin(1, ["status"]).startswith("NO QUORUM")


def test_a_real_server_that_dies_gets_no_new_flows_until_it_is_back(cluster):
    lab, nodes = cluster
    # Checks every second, of which two must agree, and a moment for each to come.
    found_within = 4
    time.sleep(found_within)
    askers = [Asker(lab.client, plan.VIPS[name]) for name in ("dsr", "nat")]
    for asker in askers:
        asker.start()
    time.sleep(1)
    died = time.monotonic()
    lab.unplug(1)
    time.sleep(found_within + 2)
    health = nodes.status(2)["health"]
    assert health["down"] == len(health["which"]) > 0 and {real["real_server"] for real in health["which"]} == {"s1"}, health
    back = time.monotonic()
    lab.unplug(1, out=False)
    time.sleep(found_within + 2)
    for asker in askers:
        asker.stop()
        assert [at for at in asker.missed if at < died - 0.05] == []
        assert any(died <= at < died + found_within for at in asker.missed), "its flows weren't missed: proves nothing"
        assert [round(at - died, 2) for at in asker.missed if at >= died + found_within] == []
    assert time.monotonic() > back
    # It takes its share again.
    before = lab.requests()
    load.run(lab.client, [plan.VIPS["dsr"].url(4)], 1, 8, False)
    assert lab.requests()["s1"] > before["s1"]


@pytest.mark.parametrize("plant", ["entry-skipped-at-times"])
def test_who_cannot_apply_an_entry_is_taken_out_alone_and_no_client_sees_it(cluster):
    """The second node loses every fiftieth entry, in lives with an odd number."""
    lab, nodes = cluster
    lab.deal([1, 3])

    def second(phase: str) -> bool:
        return nodes.status(1)["nodes"][1]["phase"] == phase

    def once() -> bool:
        """Whether the machine let the others run while the second was taken out; no client may have seen that then."""
        until(lambda: second("active"), "it serves")
        if nodes.status(1)["nodes"][1]["life"] % 2 == 0:
            lab.isolate(2)
            until(lambda: second("offline"), "it begins another life")
            lab.isolate(2, cut=False)
            until(lambda: second("active"), "it is back")
        begins = [len(nodes.process(number).text()) for number in (1, 2, 3)]

        def said(number: int) -> str:
            return nodes.process(number).text()[begins[number - 1]:]

        def differs() -> bool:
            return "its state differs from the others'" in said(2)

        def write() -> None:
            for minutes in range(1, 16):
                if not differs():
                    change = json.dumps({"idle": f"{minutes}m"})
                    status, answer = nodes.rest(1, "PUT", "/v1/objects/profile/any", change)
                    # If it leads, there is nobody to decide for a moment.
                    assert status in (200, 201, 503, 504), answer

        # As long as it is away and comes back, and a repeated SYN behind that.
        found = load.run(lab.client, [plan.VIPS["dsr"].url(4)], 8, 8, False, write)
        if offline := re.search(r".*node n[13], life \d+, is offline.*", said(1) + said(3)):
            print(offline[0])
            return False
        assert found.failures == {} and found.requests > 1000, [said(number)[-3000:] for number in (1, 2, 3)]
        assert differs(), nodes.process(2).tail()
        return True

    # A node that the machine has stopped for as long as takes it to be out is so rightly: thrice in a row it doesn't do that.
    assert any(once() for _ in range(3)), "others than the second were taken out, each time"
    until(lambda: second("active"), "it is back")


def test_of_two_writes_for_the_same_version_at_two_nodes_one_is_made(cluster):
    _, nodes = cluster
    status, made = nodes.rest(1, "PUT", "/v1/objects/profile/race", '{"idle": "1m"}')
    assert status == 201
    version = made["version"]

    def ask(number: int, idle: int, expected: int) -> tuple[int, dict]:
        change = {"key": "profile/race", "expected": expected, "object": {"idle": f"{idle}m"}}
        return nodes.rest(number, "POST", "/v1/writes", json.dumps([change]))

    for turn in range(10):
        numbers = (1 + turn % 3, 1 + (turn + 1) % 3)
        with ThreadPoolExecutor() as both:
            answers = list(both.map(ask, numbers, (10 + turn, 30 + turn), (version, version)))
        assert sorted(status for status, _ in answers) == [200, 412], answers
        (version,) = [made["index"] for status, made in answers if status == 200]

    def idle() -> set[str]:
        return {nodes.rest(number, "GET", "/v1/objects/profile/race")[1]["object"]["idle"] for number in (1, 2, 3)}

    until(lambda: len(idle()) == 1 and idle() < {"19m", "39m"}, "all say what was written last")


@pytest.mark.parametrize("method", ["nat", "dsr"])
def test_a_flow_of_a_real_server_that_is_removed_or_moves_finds_another(cluster, method):
    """By NAT; by MAC address, where a port is nothing to the packets, of one that is removed."""
    lab, nodes = cluster
    with lab.client.entered():
        flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow.connect((plan.VIPS[method].address(4), plan.UDP_PORT))
    flow.settimeout(0.1)

    def server():
        flow.send(b"x")
        try:
            return flow.recv(100).split()[0].decode()
        except (TimeoutError, ConnectionRefusedError):
            return None

    def key(name):
        return f"virtual_server/{plan.VIPS[method].name}-udp-v4/real_server/{name}"

    first = server()
    assert first and {server() for _ in range(5)} == {first}, "it stays with its real server"
    foretold = [ending(nodes, number, {"key": key(first), "delete": True}) for number in (1, 2, 3)]
    assert all(real_servers == 1 for real_servers, _ in foretold) and sum(here for _, here in foretold) > 0, foretold
    nodes.admin(1, ["delete", key(first)])
    deadline = time.monotonic() + 5
    while (second := server()) in (None, first):
        assert time.monotonic() < deadline, f"still {second} 5 s after {first} was removed"
    if method == "dsr":
        return  # Without NAT the packets of one that has moved to another port are what they were.
    # Nobody answers at another port: the flow goes there, not to where it was.
    nodes.admin(1, ["set", key(second), "port=9"])
    deadline = time.monotonic() + 5
    while server() == second:
        assert time.monotonic() < deadline, f"still {second} 5 s after it moved"


def ending(nodes: Cluster, number: int, change: dict) -> tuple[int, int]:
    """With how many real servers sessions would end by a change, and how many sessions of that node."""
    status, said = nodes.rest(number, "POST", "/v1/writes?dry_run=true", json.dumps([change]))
    assert status == 200, said
    return said["real_servers_ending"], said["sessions_here_ending"]


def test_of_two_nodes_and_a_witness_one_may_die():
    binary = build.product()
    with (
        Lab() as lab,
        hugepages.reserved() as pages,
        Cluster(lab, binary, hugepages=pages, log=True, begin=2, witness=True) as nodes,
    ):
        lab.route(plan.VIPS["dsr"], node=1)
        time.sleep(1)
        asker = Asker(lab.client, plan.VIPS["dsr"])
        asker.start()
        time.sleep(1)
        killed = time.monotonic()
        nodes.kill(2)
        time.sleep(3)
        asker.stop()
        assert [at for at in asker.missed if at < killed - 0.05] == []
        assert [round(at - killed, 2) for at in asker.missed if at > killed + 1.5] == []
        assert any(at >= killed - 0.05 for at in asker.missed), "the dead node owned nothing: proves nothing"


def test_a_cluster_begins_and_serves(cluster):
    lab, _ = cluster
    targets = [plan.VIPS[name].url(family) for name in ("nat", "dsr") for family in plan.FAMILIES]
    for keepalive in (True, False):
        found = load.run(lab.client, targets, 2, 8, keepalive)
        assert found.failures == {} and found.requests > 500


def test_downloads_survive_a_node_that_returns_and_a_router_that_deals_anew(cluster):
    lab, nodes = cluster
    vip = plan.VIPS["dsr"]
    nodes.kill(3)
    lab.deal([1, 2])
    time.sleep(2)
    downloads = load.Downloads(lab.client, vip.url(4), "1m", 200, 120_000)
    time.sleep(3)
    nodes.start_again(3)
    nodes.wait_ready()
    time.sleep(1)
    # By this order every flow gets another receiver.
    lab.deal([2, 3, 1])
    found = downloads.result()
    assert found.failures == {}
    totals = nodes.totals()
    assert sum(node["handover_in"] for node in totals) > 100, "nothing was handed over: proves nothing"


def test_a_killed_node_is_replaced_and_returns(cluster):
    lab, nodes = cluster
    askers = {name: Asker(lab.client, plan.VIPS[name]) for name in ("dsr", "nat")}
    for name in askers:
        # Its upstream router has noticed: what matters here is what the dead node owned.
        lab.route(plan.VIPS[name], node=1)
    time.sleep(1)
    for asker in askers.values():
        asker.start()
    time.sleep(1)
    losses = kills.kill(nodes, askers)
    missed = {name: len(asker.missed) for name, asker in askers.items()}
    # The control: when nobody is served for a moment, that isn't taken for one node's loss.
    for asker in askers.values():
        asker.foresee(nodes, 1, 200)
    cut = time.monotonic()
    lab.switch.ip(["link set n1f down"])
    time.sleep(0.3)
    lab.switch.ip(["link set n1f up"])
    time.sleep(1)
    for name, asker in askers.items():
        asker.stop()
        print(name, losses[name], "of", len(asker.asked))
        assert len(asker.asked) > 300
        assert losses[name].own(), "the dead node owned nothing: proves nothing"
        assert losses[name].owners == {"n3": missed[name]}, "other flows were lost than those that it owned"
        assert losses[name].seconds <= 1, "not recovered within a second"
        assert {"n1", "n2"} <= set(asker.lost(cut))

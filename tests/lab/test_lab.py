"""The laboratory itself, without Steerage: what the other tests rely on, and that its checks can fail."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
from pathlib import Path

import pytest
from lab import Lab, LabError, cluster, load, plan
from lab.namespace import names
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from waiting import until

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "scripts"
DSR, TUNNEL = plan.VIPS["dsr"], plan.VIPS["ipip"]


@pytest.fixture(scope="module")
def lab(decapsulator):
    with Lab(decapsulate=decapsulator) as made:
        yield made


# Networks and servers


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_every_server_names_itself(lab, family):
    for number, found in enumerate(lab.servers, 1):
        assert load.fetch(lab.client, plan.url(plan.front(plan.SERVERS + number, family))) == f"{found.name}\n"


def test_a_server_says_its_name_in_a_header_and_counts_requests(lab):
    target = plan.url(plan.front(plan.SERVERS + 3, 4))
    before = lab.requests()
    head = lab.client.run(["curl", "-sSI", target]).stdout
    assert "X-Server: s3" in head
    assert lab.requests() == before | {"s3": before["s3"] + 1}


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_a_vip_on_loopback_serves_directly(lab, family):
    lab.route_to_server(DSR, 2)
    assert load.fetch(lab.client, DSR.url(family)) == "s2\n"


def test_servers_stay_silent_about_vips_on_link(lab):
    flat = plan.VIPS["flat"]
    for family in plan.FAMILIES:
        with pytest.raises(LabError):
            load.fetch(lab.client, flat.url(family))


def test_datagrams_are_echoed_from_the_address_that_was_asked(lab):
    lab.route_to_server(DSR, 4)
    for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        with lab.client.entered(), socket.socket(kind, socket.SOCK_DGRAM) as asker:
            asker.settimeout(2)
            asker.connect((DSR.address(family), plan.UDP_PORT))
            asker.send(b"hello")
            assert asker.recv(100) == b"s4 hello"


def received(lab) -> list[int]:
    """Frames that the switch gave to each node's front port."""
    files = [f"/sys/class/net/n{number}f/statistics/tx_packets" for number in range(1, len(lab.nodes) + 1)]
    return [int(line) for line in lab.switch.run(["cat", *files]).stdout.split()]


@pytest.mark.parametrize(("family", "kind"), [(4, socket.AF_INET), (6, socket.AF_INET6)])
def test_the_client_spreads_flows_over_the_nodes_by_ports(lab, family, kind):
    vip = plan.VIPS["nat"]
    lab.route(vip)
    for number in range(1, 4):
        host = plan.NODES + number
        lab.client.ip([f"neigh replace {plan.front(host, family)} lladdr {plan.front_mac(host)} dev eth0"])
        # Nodes say nothing here, so the bridge can't learn where they are and would flood.
        lab.switch.run(["bridge", "fdb", "replace", plan.front_mac(host), "dev", f"n{number}f", "master", "static"])

    def send(flows: int, each: int) -> list[int]:
        before = received(lab)
        for _ in range(flows):
            with lab.client.entered(), socket.socket(kind, socket.SOCK_DGRAM) as sender:
                for _ in range(each):
                    sender.sendto(b"", (vip.address(family), plan.UDP_PORT))
        return [after - count for after, count in zip(received(lab), before)]

    spread = send(600, 1)
    # Multicast of other hosts may be among them.
    assert 600 <= sum(spread) <= 610 and min(spread) > 120
    one = send(1, 200)
    assert 200 <= max(one) <= 210 and sum(one) - max(one) <= 10
    lab.route(vip, node=2)
    alone = send(100, 1)
    assert alone[1] >= 100 and alone[0] + alone[2] <= 10
    lab.client.ip([f"neigh del {plan.front(plan.NODES + n, family)} dev eth0" for n in range(1, 4)])


# Load


def test_a_load_counts_requests_and_quantiles(lab):
    lab.route_to_server(DSR, 1)
    targets = [DSR.url(family) for family in plan.FAMILIES]
    for keepalive in (True, False):
        before = lab.requests()["s1"]
        result = load.run(lab.client, targets, 1, 4, keepalive)
        assert result.failures == {}
        assert result.requests > 500
        # Requests under way when wrk ends are the server's alone.
        assert 0 <= lab.requests()["s1"] - before - result.requests <= 8
        assert 0 < result.quantile(0.5) <= result.quantile(0.99) < 1000


def test_a_refused_load_fails(lab):
    target = plan.url(plan.front(plan.SERVERS + 1, 4), port=82)
    result = load.run(lab.client, [target], 1, 2, True)
    assert result.requests <= 1
    assert any(reason.startswith("wrk: ") for reason in result.failures)


def test_a_load_without_any_answer_fails(lab):
    # Nobody answers ARP for this address.
    found = load.Wrk(lab.client, plan.url(plan.front(99, 4)), 1).result()
    assert found.requests == 0 and found.failed > 0


def test_a_refused_download_fails(lab):
    found = load.Download(lab.client, plan.url(plan.front(plan.SERVERS + 1, 4), port=82), "1k").result()
    assert found.requests == found.failed == 1
    assert all(reason.startswith("curl: ") for reason in found.failures)


def test_a_missing_page_is_a_failed_request(lab):
    found = load.Wrk(lab.client, plan.url(plan.front(plan.SERVERS + 1, 4), "/none"), 1).result()
    assert found.requests > 0 and found.failures == {"HTTP status": found.requests}


def test_a_changed_file_is_a_failed_request(lab):
    base = plan.url(plan.front(plan.SERVERS + 1, 4))
    file = lab.directory / "files" / "100k"
    good = file.read_bytes()
    assert load.Download(lab.client, base, "100k").result().failures == {}
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        assert load.Download(lab.client, base, "100k").result().failures == {"content differs": 1}
    finally:
        file.write_bytes(good)


@pytest.mark.parametrize("keepalive", [True, False])
@pytest.mark.parametrize(("begin", "end"), [(0.5, 2.6), (0.5, 3)], ids=["for a while", "till the end"])
def test_a_hung_request_is_a_failed_one(lab, keepalive, begin, end):
    lab.route_to_server(DSR, 3)
    pids = pids_in(lab.server(3).namespace.name)

    def send(number: int) -> None:
        for pid in pids:
            os.kill(pid, number)

    timers = [threading.Timer(begin, send, [signal.SIGSTOP]), threading.Timer(end, send, [signal.SIGCONT])]
    for timer in timers:
        timer.start()
    try:
        # A load of 4 s goes on behind the first, one of 2 s ends in the second.
        result = load.run(lab.client, [DSR.url(4)], 4 if end < 3 else 2, 3, keepalive)
    finally:
        for timer in timers:
            timer.join()
    assert result.requests > 500
    # Three of wrk's, and perhaps a download.
    assert 3 <= result.failures[load.LATE] <= 4, result.failures


def test_stalls_are_told_by_what_came(lab):
    stalls = load.Stalls(lab.client, [DSR.url(4), DSR.url(6)])
    kept = "ESTAB 0 0 10.10.0.1:1000 10.99.0.1:80 cubic bytes_sent:9 bytes_received:{} lastsnd:5\n"
    opening = "SYN-SENT 0 1 [fd10::1]:2000 [fd99::1]:80 cubic rto:1000\n"
    for second, received in ((0, 100), (1, 200), (2, 300)):
        stalls.note(kept.format(received), second)
    assert stalls.count() == 0
    stalls.note(kept.format(300) + opening, 2.7)
    assert stalls.count() == 0
    # What waits at the end would have had to go on doing so.
    stalls.note(kept.format(300) + opening, 2.8)
    assert stalls.count() == 1
    stalls.note(kept.format(300) + opening, 3.5)
    assert stalls.count() == 2
    # A late answer is a late answer, and the next one may be in time.
    stalls.note(kept.format(400), 3.6)
    assert stalls.count() == 1
    stalls.note(kept.format(400), 5.2)
    assert stalls.count() == 2


def test_a_load_that_is_called_off_ends_at_once_and_keeps_what_it_saw(lab):
    lab.route_to_server(DSR, 1)
    begin = time.monotonic()

    def watch() -> None:
        if time.monotonic() > begin + 1:
            raise LabError("enough")

    total = load.Result()
    with pytest.raises(LabError, match="enough"):
        load.run(lab.client, [DSR.url(4)], 30, 2, True, watch, total)
    assert time.monotonic() - begin < 3
    assert total.requests > 500 and total.failures == {}


def test_wrk_that_waits_for_a_connection_is_ended(lab):
    # Frames to this neighbour go nowhere, so that connect(2) waits for minutes.
    address = plan.front(98, 4)
    lab.client.ip([f"neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0"])
    begin = time.monotonic()
    found = load.Wrk(lab.client, plan.url(address), 30)
    # Until it is wrk that hears the signal.
    time.sleep(0.3)
    found.end()
    assert found.result().failures == {"wrk did not end": 1}
    assert time.monotonic() - begin < 6


def test_quantiles_are_those_of_all_runs_together():
    fast = load.Result(requests=900, latencies=[(100, 450), (200, 450)])
    fast.add(load.Result(requests=100, latencies=[(5000, 100)]))
    assert fast.requests == 1000
    assert (fast.quantile(0.5), fast.quantile(0.9), fast.quantile(0.99)) == (0.2, 0.2, 5.0)
    assert load.Result().quantile(0.5) == 0


def test_wrk_without_a_result_is_an_error():
    with pytest.raises(LabError, match="wrk gave no result: unable to connect"):
        load.parse_wrk("unable to connect")


# Tunnels into a server


@pytest.mark.parametrize("kind", ["ip", "gue0", "gue1"])
@pytest.mark.parametrize("outer", plan.FAMILIES)
def test_tcp_through_a_tunnel(lab, kind, outer):
    tunnel = lab.client.spawn([sys.executable, str(HERE / "encap.py"), "tunnel", kind, plan.front(plan.SERVERS + 2, outer)])
    try:
        until(lambda: lab.client.run(["ip", "link", "show", "tunnel"], check=False).returncode == 0, "the tunnel is there")
        # An outer header must fit beside the longest segment.
        lab.client.ip(["link set tunnel mtu 1400 up"])
        for inner in plan.FAMILIES:
            lab.client.ip([f"route replace {TUNNEL.prefix(inner)} dev tunnel src {plan.front(plan.CLIENT, inner)}"])
            assert load.fetch(lab.client, TUNNEL.url(inner)) == "s2\n"
            assert load.Download(lab.client, TUNNEL.url(inner), "100k").result().failures == {}
    finally:
        tunnel.stop()
        until(lambda: lab.client.run(["ip", "link", "show", "tunnel"], check=False).returncode != 0, "the tunnel is gone")
        lab.route(TUNNEL)


GUE = UDP(sport=50000, dport=6080)


def outer4(**fields):
    """An IPv4 header from the client to server 1."""
    return IP(src=plan.front(plan.CLIENT, 4), dst=plan.front(plan.SERVERS + 1, 4), **fields)


def outer6(protocol: int):
    """An IPv6 header from the client to server 1."""
    return IPv6(src=plan.front(plan.CLIENT, 6), dst=plan.front(plan.SERVERS + 1, 6), nh=protocol)


# What stands between Ethernet and the inner IPv4 packet, and whether that packet should arrive.
TUNNELS = {
    "4in4": (outer4(proto=4), True),
    "4in4, outer options": (outer4(proto=4, options=b"\x01" * 40), True),
    "4in6": (outer6(4), True),
    "GUE 0": (outer4() / GUE / bytes([0, 4, 0, 0]), True),
    "GUE 0, longest header": (outer4() / GUE / (bytes([0x1F, 4, 0, 0]) + bytes(124)), True),
    "GUE 0 over IPv6": (outer6(17) / GUE / bytes([0, 4, 0, 0]), True),
    "GUE 1": (outer4() / GUE, True),
    "GUE control message": (outer4() / GUE / bytes([0x20, 4, 0, 0]), False),
    "GUE of variant 2": (outer4() / GUE / bytes([0x80, 4, 0, 0]), False),
    "GUE without a packet": (outer4() / GUE / bytes([0, 59, 0, 0]), False),
    "UDP of another port": (outer4() / UDP(sport=50000, dport=6081) / bytes([0, 4, 0, 0]), False),
    "fragment": (outer4(proto=4, flags="MF"), False),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_a_handmade_tunnel_packet(lab, name):
    outer, arrives = TUNNELS[name]
    with lab.client.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("eth0", 0))
        answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        answers.bind((plan.front(plan.CLIENT, 4), 0))
    with wire, answers:
        answers.settimeout(2 if arrives else 0.3)
        inner = IP(src=plan.front(plan.CLIENT, 4), dst=TUNNEL.address(4))
        payload = UDP(sport=answers.getsockname()[1], dport=plan.UDP_PORT) / b"inside"
        link = Ether(src=plan.front_mac(plan.CLIENT), dst=plan.front_mac(plan.SERVERS + 1))
        # Raw: scapy must not set fields of the outer headers from what follows.
        wire.send(bytes(link / outer / Raw(bytes(inner / payload))))
        if arrives:
            assert answers.recv(100) == b"s1 inside"
        else:
            with pytest.raises(TimeoutError):
                answers.recv(100)


def test_packets_cut_short_do_no_harm(lab):
    whole = bytes(
        Ether(src=plan.front_mac(plan.CLIENT), dst=plan.front_mac(plan.SERVERS + 1))
        / outer6(17) / GUE / (bytes([2, 4, 0, 0]) + bytes(8)) / IP(dst=TUNNEL.address(4)) / UDP(dport=plan.UDP_PORT)
    )
    with lab.client.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        for length in range(14, len(whole)):
            wire.send(whole[:length])
    assert load.fetch(lab.client, plan.url(plan.front(plan.SERVERS + 1, 4))) == "s1\n"


# Configuration of the nodes


def test_configuration_is_toml_and_complete():
    shared = tomllib.loads(cluster.cluster_file(["n1", "n2", "n3"], 4))
    found = {one["name"]: one for one in shared["virtual_server"]}
    for name, vip in plan.VIPS.items():
        for family in plan.FAMILIES:
            assert found[f"{name}-v{family}"]["address"] == vip.address(family)
            assert len(found[f"{name}-v{family}"]["real_server"]) == 4
    assert found["ipip-cross-v4"]["real_server"][0]["address"] == "fd10::21"
    assert {one["name"] for one in shared["group"]} == {"pair", "solo"}
    assert len({one["address"] for one in shared["snat"]}) == len(shared["snat"]) == 10
    mine = tomllib.loads(cluster.node_file(2, Path("/run/x.sock"), False, False))
    assert mine["node"]["name"] == "n2" and mine["dpdk"]["hugepages"] is False
    assert mine["tables"]["steering_cache"] is False
    assert mine["port"][1]["device"] == "net_af_xdp1,iface=back"
    # RFC 8200: IPv6 40, UDP 8; 32 bytes of header behind them.
    assert mine["port"][1]["mtu"] >= mine["port"][0]["mtu"] + 80
    assert mine["port"][0]["mtu"] >= plan.CLIENT_MTU + 52


# The end


def start_another() -> tuple[subprocess.Popen, str]:
    """A laboratory in a process of its own, and its namespaces' prefix."""
    script = f"""
        import sys, time
        sys.path.insert(0, {str(SCRIPTS)!r})
        from lab import Interrupted, Lab
        try:
            with Lab(nodes=1, servers=1) as lab:
                lab.client.spawn(["sleep", "1000"])
                print(lab.prefix, flush=True)
                time.sleep(60)
        except Interrupted as interrupted:
            sys.exit(interrupted.code)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def left_of(prefix: str) -> list[str]:
    """Namespaces and state of a laboratory that are still there."""
    state = Path("/run/steerage-lab") / prefix.removeprefix("stg")
    return [name for name in names() if name.startswith(prefix + "-")] + [str(state)] * state.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number):
    process, prefix = start_another()
    assert len(left_of(prefix)) == 5
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert left_of(prefix) == []


def test_leftovers_of_a_killed_laboratory_are_removed_by_the_next():
    process, prefix = start_another()
    try:
        stale = left_of(prefix)
        until(lambda: pids_in(f"{prefix}-client"), "the client's processes run")
        (sleeper,) = pids_in(f"{prefix}-client")
    finally:
        process.kill()
        process.wait(10)
    assert left_of(prefix) == stale
    other, later = start_another()
    try:
        assert left_of(prefix) == []
        until(lambda: not Path(f"/proc/{sleeper}").exists(), "its process is gone")
        assert len(left_of(later)) == 5
    finally:
        other.terminate()
        other.wait(10)
    assert left_of(later) == []


def pids_in(name: str) -> list[int]:
    """Processes in a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
    return [int(pid) for pid in found.stdout.split()]


def test_nothing_is_left_when_building_fails(lab, tmp_path):
    script = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(SCRIPTS)!r})
        from lab import Lab
        import os
        print("stg%d" % os.getpid(), flush=True)
        with Lab(nodes=1, servers=1, decapsulate=Path({str(tmp_path / "none.o")!r})):
            pass
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "LabError" in done.stderr
    assert left_of(done.stdout.strip()) == []
    # And this one lives on.
    assert len(left_of(lab.prefix)) == 10


def test_a_second_laboratory_in_one_process_is_refused(lab):
    assert lab.directory == Path("/run/steerage-lab") / str(os.getpid())
    with pytest.raises(LabError, match="has a laboratory already"):
        Lab().__enter__()
    assert load.fetch(lab.client, plan.url(plan.front(plan.SERVERS + 1, 4))) == "s1\n"

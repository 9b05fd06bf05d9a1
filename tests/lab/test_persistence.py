"""A thousand clients keep their servers while the servers' shares change and a node dies, with a control."""

import json
import time

import pytest
from lab import Cluster, Lab, build, hugepages, plan
from lab.clients import Clients
from waiting import until

VIP = plan.Vip("kept", 8, "nat")
COUNT = 1000
KILLED = 3


def objects(servers: int) -> list[dict]:
    """A virtual server whose clients keep their real servers, as one write."""
    server = {"address": VIP.address(4), "port": plan.HTTP_PORT, "forward": "nat"}
    server["health"] = {"type": "tcp", "interval": "500ms", "timeout": "300ms", "rise": 2, "fall": 2}
    changes = [
        {"key": "virtual_server/kept", "object": server},
        {"key": "persistence/kept", "object": {"timeout": "10m"}},
    ]
    for number in range(1, servers + 1):
        real = {"address": plan.front(plan.SERVERS + number, 4), "port": plan.HTTP_PORT}
        changes.append({"key": f"virtual_server/kept/real_server/s{number}", "object": real})
    return changes


@pytest.mark.parametrize("plant", [None, "client-forgotten"], ids=["", "control: nobody looks who they have"])
def test_clients_keep_their_servers(plant):
    binary = build.breakable() if plant else build.product()
    with (
        Lab(servers=2) as lab,
        hugepages.reserved() as pages,
        Cluster(lab, binary, pages, log=True, plant=plant) as nodes,
    ):
        status, said = nodes.rest(1, "POST", "/v1/writes", json.dumps(objects(2)))
        assert status == 200, said
        lab.route(VIP)
        nodes.wait_rest(KILLED)
        clients = Clients(lab.client, VIP, COUNT)
        clients.connect(8)
        assert clients.failures == {}
        first = clients.servers()
        assert all(len(servers) == 1 for servers in first.values()), "not even the living remember"
        of = {name: {address for address, had in first.items() if had == {name}} for name in ("s1", "s2")}
        assert min(len(own) for own in of.values()) >= 300
        # From now on no new client gets the first server.
        nodes.admin(1, ["set", "virtual_server/kept/real_server/s1", "weight=0"])
        clients.connect(4)
        lab.deal([1, 2])
        nodes.kill(KILLED)
        until(lambda: nodes.status(1)["nodes"][KILLED - 1]["phase"] not in ("active", "draining"), "it counts as dead", 10)
        clients.connect(4)
        nodes.start_again(KILLED)
        nodes.wait_ready()
        lab.deal([3, 1, 2])
        clients.connect(4)
        kept = sum(node["clients_kept"] for node in nodes.totals())
        astray = [address for address, servers in clients.servers().items() if len(servers) > 1]
        print(f"{COUNT} clients, {len(astray)} with another server, {len(clients.failures)} with failures; {kept} flows by what was kept")
        if plant:
            assert len(astray) >= 50, "they keep them by themselves"
            return
        assert astray == [] and clients.failures == {}
        assert kept >= 10 * COUNT
        # A server that is down is nobody's.
        lab.unplug(1)
        until(lambda: all(down(nodes, number) for number in (1, 2, 3)), "it is down, and all go by that", 10)
        time.sleep(0.2)
        clients.connect(1)
        assert clients.failures == {}
        assert all(servers[-1:] == ["s2"] for servers in clients.served.values())


def down(nodes: Cluster, number: int) -> bool:
    """Whether the first server of the virtual server is, by what a node goes by."""
    status = nodes.status(number)
    which = {(one["virtual_server"], one["real_server"]) for one in status["health"]["which"]}
    return ("kept", "s1") in which and status["in_force"] == status["version"]

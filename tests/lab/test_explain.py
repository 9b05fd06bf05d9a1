"""What a running node explains, against where curl's requests went."""

import pytest
from lab import Cluster, Lab, build, hugepages, plan


@pytest.fixture(scope="module")
def running():
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, build.product(), pages) as nodes:
        yield lab, nodes


def owner_of(nodes: Cluster, told: dict) -> int:
    """Number of the node that owns what was explained."""
    return nodes.names.index(told["owner"]["node"]) + 1


# Each case has source ports of its own: those of the one before are still waiting (TIME-WAIT, RFC 9293 §3.3.2).
CASES = [
    (name, family, 41000 + 100 * place + 10 * family)
    for place, name in enumerate(("nat", "dsr", "pair"))
    for family in plan.FAMILIES
]


@pytest.mark.parametrize(("name", "family", "first_port"), CASES)
def test_requests_go_where_explain_says(running, name, family, first_port):
    lab, nodes = running
    vip = plan.VIPS[name]
    client = plan.front(plan.CLIENT, family)
    address = vip.address(family)
    servers = set()
    for port in range(first_port, first_port + 12):
        tuple_ = ("tcp", plan.endpoint(client, port), plan.endpoint(address, plan.HTTP_PORT))
        # All nodes foretell the same of a fresh flow, whoever receives it.
        fresh = [nodes.explain(number, *tuple_) for number in (1, 2, 3)]
        assert len({(told["owner"]["node"], told["real_server"]["name"]) for told in fresh}) == 1
        before = [nodes.virtual_server(number, f"{name}-v{family}")["connections"] for number in (1, 2, 3)]
        curl = ["curl", "-gsS", "--fail", "--max-time", "5", "--local-port", str(port), vip.url(family)]
        answered = lab.client.run(curl, timeout=10).stdout.strip()
        assert answered == fresh[0]["real_server"]["name"]
        owner = owner_of(nodes, fresh[0])
        after = [nodes.virtual_server(number, f"{name}-v{family}")["connections"] for number in (1, 2, 3)]
        assert [number for number in (1, 2, 3) if after[number - 1] > before[number - 1]] == [owner]
        # Now the owner has a session.
        known = nodes.explain(owner, *tuple_)
        assert known["session"]["client"] == plan.endpoint(client, port)
        assert known["real_server"]["name"] == answered
        assert known["next_hop"]["mac"] == plan.front_mac(plan.SERVERS + int(answered[1:]))
        if vip.forward == "nat":
            # And whichever node the server's reply comes to, it goes there.
            reply = nodes.explain(1, "tcp", known["rewrite"]["destination"], known["rewrite"]["source"])
            assert owner_of(nodes, reply) == owner
        servers.add(answered)
    # Control: an explanation that always said the same server would not have passed.
    assert len(servers) > 1

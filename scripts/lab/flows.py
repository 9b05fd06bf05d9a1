"""Flows from source ports that are chosen here, so that a node can be asked beforehand who is going to own them."""

import itertools
import socket
import threading
from collections import Counter, deque
from dataclasses import dataclass

from . import plan
from .cluster import Cluster
from .namespace import Namespace

SOCKETS = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True)
class Failed:
    """A flow with a request that got no answer."""

    # When it began, as time.monotonic() says.
    opened: float
    port: int
    why: str
    # Who has answered on it before, if anybody did.
    server: str | None = None


class Flows(threading.Thread):
    """One after the other begins, to one port of a virtual server; what failed is noted. Subclasses say what is asked."""

    KIND: socket.SocketKind
    PROTOCOL: str
    PORT: int

    # No flow is one of before, whose session may still stand with a dead server: the kernel, left to choose, repeats ports.
    # Below those that it gives out; a round takes minutes.
    _ports = itertools.cycle(range(10_000, 32_000))

    def __init__(self, client: Namespace, vip: plan.Vip, family: int, every: float):
        super().__init__(daemon=True)
        self._client, self._to, self._family, self._every = client, (vip.address(family), self.PORT), family, every
        self._end = threading.Event()
        self._foreseen: deque[int] = deque()
        # By source port, the node that was going to own the flow when that was last asked.
        self.owners: dict[int, str] = {}
        self.answered = 0
        self.failed: list[Failed] = []

    def foresee(self, nodes: Cluster, number: int, count: int) -> None:
        """Asks node `number`, from 1, who owns the next `count` flows; those then begin, until there are no more of them."""
        ports = [next(self._ports) for _ in range(count)]
        client, to = plan.front(plan.CLIENT, self._family), plan.endpoint(*self._to)
        told = nodes.explanations(number, self.PROTOCOL, [(plan.endpoint(client, port), to) for port in ports])
        self.owners.update(zip(ports, ((each["owner"] or {}).get("node", "nobody") for each in told)))
        self._foreseen = deque(ports)

    def lost(self, since: float) -> Counter[str]:
        """How many of the flows begun since then failed, by the node that owned them; "unknown" if nobody was asked."""
        return Counter(self.owners.get(failed.port, "unknown") for failed in self.failed if failed.opened >= since)

    def stop(self) -> None:
        """Begins no more, and waits for the last answers."""
        self._end.set()
        self.join()

    def _open(self) -> tuple[int, socket.socket]:
        """A socket that doesn't block, and its source port."""
        while True:
            foreseen = self._foreseen
            port = foreseen.popleft() if foreseen else next(self._ports)
            flow = socket.socket(SOCKETS[self._family], self.KIND)
            flow.setblocking(False)
            try:
                flow.bind(("", port))
                return port, flow
            except OSError:
                # Another program has it.
                flow.close()

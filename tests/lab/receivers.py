"""Which nodes get which flows' packets."""

from lab import Lab, plan
from lab.capture import Capture


class Receivers:
    """Which node gets which flow's packets, by the client's port, as long as the block lasts."""

    def __init__(self, lab: Lab, vip: plan.Vip):
        self._lab, self._vip = lab, vip
        self.nodes: dict[int, set[int]] = {}

    def __enter__(self) -> "Receivers":
        to_vip = f"tcp and dst host {self._vip.address(4)}"
        numbers = range(1, len(self._lab.nodes) + 1)
        self._captures = {n: Capture(self._lab.switch, f"n{n}f", to_vip, length=64) for n in numbers}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, capture in self._captures.items():
            for frame in capture.stop():
                if frame.left:
                    port = int.from_bytes(frame.head[34:36], "big")
                    self.nodes.setdefault(port, set()).add(number)


def moved(before: Receivers, after: Receivers) -> list[int]:
    """The flows of both that have other receivers than before."""
    both = before.nodes.keys() & after.nodes.keys()
    return [port for port in both if before.nodes[port].isdisjoint(after.nodes[port])]

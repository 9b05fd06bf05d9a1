"""Network namespaces."""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import LabError
from .process import Process, Processes, kill, output

CLONE_NEWNET = 0x40000000  # <sched.h>
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace that this laboratory made."""

    def __init__(self, name: str, directory: Path, processes: Processes):
        self.name = name
        self.directory = directory
        self._processes = processes
        self._logs = 0
        output(["ip", "netns", "add", name])
        self.ip(["link set lo up"])

    def command(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` inside."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, argv: list[str], timeout: float = 30, check: bool = True, stdin: str | None = None):
        """Runs a command inside to its end; its `stdout` and `stderr` are text."""
        return output(self.command(argv), timeout, check, stdin)

    def spawn(self, argv: list[str], log: str | None = None) -> Process:
        """Starts a command inside; it ends with the laboratory at the latest. `log` names the file of its output."""
        self._logs += 1
        name = log or f"{Path(argv[0]).name}-{self._logs}.log"
        return self._processes.spawn(self.command(argv), self.directory / name)

    def ip(self, lines: list[str]) -> None:
        """Runs `ip` commands (without the word `ip`), in order, stopping at the first that fails."""
        output(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(lines) + "\n")

    def sysctl(self, settings: dict[str, object]) -> None:
        """Sets kernel parameters of this namespace; the keys are as in sysctl(8) without the leading `net.`."""
        self.run(["sysctl", "-q", "-w", *(f"net.{key}={value}" for key, value in settings.items())])

    def counters(self) -> Callable[[], dict[str, tuple[int, int]]]:
        """A function that reads how many frames the kernel has received from and sent to each device so far."""
        with self.entered():
            # As proc(5) says, it shows the namespace that the thread is in when it opens it.
            table = open("/proc/thread-self/net/dev")

        def read() -> dict[str, tuple[int, int]]:
            table.seek(0)
            rows = (line.split(":") for line in table.read().splitlines()[2:])
            each = ((name.strip(), numbers.split()) for name, numbers in rows)
            return {name: (int(numbers[1]), int(numbers[9])) for name, numbers in each}

        return read

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside: sockets that it opens belong to the namespace, also afterwards."""
        with open("/proc/thread-self/ns/net") as outside, open(f"/run/netns/{self.name}") as inside:
            _set(inside.fileno())
            try:
                yield
            finally:
                _set(outside.fileno())


def _set(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise LabError(f"can't enter a network namespace: {os.strerror(ctypes.get_errno())}")


def names() -> list[str]:
    """All named network namespaces of the machine."""
    return [line.split()[0] for line in output(["ip", "netns", "list"]).stdout.splitlines() if line.split()]


def remove(name: str) -> None:
    """Removes a namespace that a laboratory made, with what still runs in it."""
    for _ in range(50):
        pids = output(["ip", "netns", "pids", name], check=False).stdout.split()
        if not pids:
            break
        for pid in pids:
            kill(int(pid))
        time.sleep(0.02)
    # Another laboratory may remove the same leftovers at the same time.
    if output(["ip", "netns", "del", name], check=False).returncode != 0 and name in names():
        raise LabError(f"the network namespace {name} can't be removed")

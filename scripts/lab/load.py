"""HTTP requests from the client: wrk for many, curl for files whose content is checked."""

import hashlib
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .errors import LabError
from .namespace import Namespace
from .process import Process
from .server import FILES, digest

MARK = "@result "
SCRIPT = Path(__file__).with_name("report.lua")
# A download that takes longer has failed.
DOWNLOAD_SECONDS = 20
# Of a download's pace the client takes so much ahead.
RECEIVE_BYTES = 65536
# A request that waits longer for a byte has failed: more than one lost SYN takes (RFC 6298: 1 s), and less than a node
# needs to come back.
LATE_SECONDS = 1.5
# One that waits this long when its load ends would have had to wait on.
LATE_AT_END_SECONDS = 0.75
SAMPLE_SECONDS = 0.2
LATE = f"no answer within {LATE_SECONDS} s"


@dataclass
class Result:
    """What a load saw. `latencies` are (microseconds, weight): thousandths of wrk runs, weighted by their requests."""

    requests: int = 0
    seconds: float = 0.0
    # Failed requests by reason.
    failures: dict[str, int] = field(default_factory=dict)
    latencies: list[tuple[int, float]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(self.failures.values())

    def fail(self, reason: str, count: int = 1) -> None:
        """Counts failures."""
        if count:
            self.failures[reason] = self.failures.get(reason, 0) + count

    def add(self, other: "Result") -> None:
        """Adds another load's result. The time is the longer of both: loads that are added ran beside each other."""
        self.requests += other.requests
        self.seconds = max(self.seconds, other.seconds)
        for reason, count in other.failures.items():
            self.fail(reason, count)
        self.latencies += other.latencies

    def quantile(self, share: float) -> float:
        """Latency in milliseconds that `share` of all requests of wrk did not exceed; 0 without requests."""
        total = sum(weight for _, weight in self.latencies)
        passed = 0.0
        for microseconds, weight in sorted(self.latencies):
            passed += weight
            if passed >= share * total:
                return microseconds / 1000
        return 0.0


def parse_wrk(text: str) -> Result:
    """The result in what wrk wrote with our script; LabError if there is none."""
    lines = [line for line in text.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise LabError(f"wrk gave no result: {text.strip()[-400:]}")
    found = json.loads(lines[0][len(MARK):])
    result = Result(requests=found["requests"], seconds=found["microseconds"] / 1e6)
    for reason in ("connect", "read", "write"):
        result.fail(f"wrk {reason} error", found[reason])
    result.fail(LATE, found["timeout"])
    result.fail("HTTP status", found["status"])
    if found["requests"]:
        weight = found["requests"] / len(found["latency"])
        result.latencies = [(microseconds, weight) for microseconds in found["latency"]]
    return result


class Wrk:
    """A wrk run in the background."""

    def __init__(self, client: Namespace, url: str, seconds: float, connections: int = 16, keepalive: bool = True):
        # wrk takes whole seconds.
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(SCRIPT)]
        if not keepalive:
            argv += ["-H", "Connection: close"]
        self.url = url
        self._process = client.spawn([*argv, url])
        self._end = time.monotonic() + seconds + 5

    def running(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.running() and time.monotonic() < self._end

    def end(self) -> None:
        """Asks it to end now and to say what it saw so far."""
        self._process.signal(signal.SIGINT)
        self._end = time.monotonic() + 2

    def result(self) -> Result:
        """Waits for its end. A run that answered nothing at all is one failure, and so is one that hangs."""
        while self.running():
            time.sleep(0.005)
        hangs = self._process.running()
        # wrk tries its address with a blocking connect(2) and hears no SIGINT meanwhile.
        code = self._process.stop(1)
        if hangs or code != 0:
            result = Result()
            result.fail("wrk did not end" if hangs else f"wrk: {self._process.tail(1) or code}")
            return result
        result = parse_wrk(self._process.text())
        if result.requests == 0:
            result.fail("wrk got no answer")
        return result


class Stalls:
    """Finds requests that nobody answers. wrk tells a late answer only once it is there, and no late connection at all;
    here the sockets say it, each of which has a request under way as long as it is being opened or open."""

    def __init__(self, client: Namespace, targets: list[str]):
        """`targets`: URLs; connections to their hosts are looked at."""
        self._client = client
        hosts = [urlsplit(target).netloc.rsplit("]")[0] for target in targets]
        hosts = [f"[{host[1:]}]" if host.startswith("[") else host.split(":")[0] for host in hosts]
        self._filter = ["(", *" or ".join(f"dst {host}" for host in sorted(set(hosts))).split(), ")"]
        # By connection: bytes that came, and since when there were no more.
        self._seen: dict[str, tuple[int, float]] = {}
        self._stalled: set[str] = set()
        self._last = 0.0

    def sample(self, under_way: Callable[[], bool]) -> None:
        """Looks at all connections; unless they are no more `under_way` behind that: what has ended waits for nothing, and it
        would seem that nothing waited."""
        # TCP's states of waiting: a connection that is being closed has its answer.
        text = self._client.run(["ss", "-HOtni", "state", "syn-sent", "state", "established", *self._filter]).stdout
        if under_way():
            self.note(text, time.monotonic())

    def note(self, text: str, now: float) -> None:
        """Takes ss's output of the time `now`, in seconds."""
        seen = {}
        for line in text.splitlines():
            # State, two queues, two addresses, details.
            words = line.split(None, 5)
            connection = f"{words[3]} {words[4]}"
            came = re.search(r"bytes_received:(\d+)", line)
            received = int(came[1]) if came else 0
            before = self._seen.get(connection)
            seen[connection] = before if before and before[0] == received else (received, now)
            if now - seen[connection][1] >= LATE_SECONDS:
                self._stalled.add(f"{connection} {seen[connection]}")
        self._seen = seen
        self._last = now

    def count(self) -> int:
        """Requests that waited too long so far, those included that were about to when the last sample was taken."""
        waiting = {f"{name} {one}" for name, one in self._seen.items() if self._last - one[1] >= LATE_AT_END_SECONDS}
        return len(self._stalled | waiting)


class Download:
    """A file fetched by curl in the background, and compared."""

    def __init__(self, client: Namespace, base: str, name: str):
        """`base`: URL of the server's root, with the slash."""
        self._name = name
        self._file = client.directory / f"download-{time.monotonic_ns()}"
        limit = str(DOWNLOAD_SECONDS)
        # -g: brackets of IPv6 addresses are no globs.
        argv = ["curl", "-gsS", "--fail", "--max-time", limit, "-o", str(self._file), f"{base}files/{name}"]
        self._process: Process = client.spawn(argv)

    def running(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.running()

    def stop(self) -> None:
        """Ends it without a result."""
        self._process.stop()
        self._file.unlink(missing_ok=True)

    def result(self) -> Result:
        """Waits for its end and compares what came."""
        result = Result(requests=1)
        code = self._process.wait(DOWNLOAD_SECONDS + 5)
        if code != 0:
            result.fail(f"curl: {self._process.tail(1) or code}")
        elif hashlib.sha256(self._file.read_bytes()).hexdigest() != digest(self._name):
            result.fail("content differs")
        self._file.unlink(missing_ok=True)
        self._process.log.unlink(missing_ok=True)
        return result


class Downloads:
    """Many downloads of one file at once, each at so slow a pace that it lasts; by one curl."""

    def __init__(
        self, client: Namespace, base: str, name: str, count: int, bytes_a_second: int, seconds: float = DOWNLOAD_SECONDS
    ):
        """`base`: URL of the server's root, with the slash. One that takes longer than `seconds` has failed."""
        self._name = name
        self._directory = client.directory / f"downloads-{time.monotonic_ns()}"
        self._directory.mkdir()
        self._count = count
        # What curl doesn't read the client's kernel would take in its stead: the wire would have no pace.
        client.sysctl({"ipv4.tcp_rmem": f"4096 {RECEIVE_BYTES} {RECEIVE_BYTES}"})
        url = f"{base}files/{name}"
        argv = ["curl", "-gsS", "--fail", "--max-time", str(seconds), "--limit-rate", str(bytes_a_second)]
        argv += ["--parallel", "--parallel-immediate", "--parallel-max", str(count)]
        for number in range(count):
            argv += ["-o", str(self._directory / str(number)), url]
        self._process: Process = client.spawn(argv)

    def result(self) -> Result:
        """Waits for their end and compares what came."""
        result = Result(requests=self._count)
        self._process.wait(DOWNLOAD_SECONDS + 5)
        wanted = digest(self._name)
        for number in range(self._count):
            file = self._directory / str(number)
            if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                result.fail(f"a download is not whole ({self._process.tail(1)})")
        shutil.rmtree(self._directory)
        return result


def fetch(client: Namespace, url: str) -> str:
    """Asks once with curl and returns the body; LabError with curl's reason if that fails."""
    return client.run(["curl", "-gsS", "--fail", "--max-time", "5", url], timeout=10).stdout


def run(
    client: Namespace,
    targets: list[str],
    seconds: float,
    connections: int,
    keepalive: bool,
    watch: Callable[[], None] = lambda: None,
    total: Result | None = None,
) -> Result:
    """Loads all targets (URLs of roots) at once with wrk, and fetches every file from each in turn meanwhile.

    `watch` is called a few times a second and may end the load by a LabError. What was seen goes to `total`, also then.
    """
    total = Result() if total is None else total
    loads = [Wrk(client, target, seconds, connections, keepalive) for target in targets]
    todo = [(target, name) for name in FILES for target in targets]
    turn = 0
    current: Download | None = None
    stalls = Stalls(client, targets)
    due = time.monotonic()
    try:
        while any(load.running() for load in loads):
            if time.monotonic() >= due:
                watch()
                stalls.sample(lambda: all(load.running() for load in loads))
                due = time.monotonic() + SAMPLE_SECONDS
            if current is None:
                current = Download(client, *todo[turn % len(todo)])
                turn += 1
            elif not current.running():
                total.add(current.result())
                current = None
            time.sleep(0.005)
        while current is not None and current.running():
            watch()
            time.sleep(0.05)
    except LabError:
        for load in loads:
            load.end()
        if current is not None:
            current.stop()
            current = None
        raise
    finally:
        # After a signal nobody waits: the laboratory ends all processes.
        if not isinstance(sys.exception(), KeyboardInterrupt):
            _collect(total, loads, current, stalls)
    return total


def _collect(total: Result, loads: list[Wrk], download: Download | None, stalls: Stalls) -> None:
    if download is not None:
        total.add(download.result())
    for load in loads:
        total.add(load.result())
    # Both may have seen the same ones.
    total.fail(LATE, max(0, stalls.count() - total.failures.get(LATE, 0)))

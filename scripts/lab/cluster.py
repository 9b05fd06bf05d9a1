"""Steerage in the laboratory's nodes: configuration, start, readiness, counters, end."""

import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

from . import plan
from .errors import LabError, NodeEnded
from .lab import Lab
from .process import Process, output

# The key of a laboratory is no secret.
KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
READY_SECONDS = 30
REST_SECONDS = 60
WITNESS = "w1"
# Of a small disk.
DISK_BYTES = 8 << 20
# DPDK makes a directory here for each process, by the prefix that a node makes of its name, and leaves it there.
RUNTIME = Path("/var/run/dpdk")


class Cluster:
    """One `steerage run` in each node of a laboratory; a context manager that waits until all are ready."""

    def __init__(
        self,
        lab: Lab,
        binary: Path,
        hugepages: bool = True,
        steering_cache: bool = True,
        log: bool = False,
        begin: int | None = None,
        witness: bool = False,
        plant: str | None = None,
        small_disk: int | None = None,
        closed: str | None = None,
    ):
        """`log`: the nodes decide together, as members of a cluster that begins with the first `begin` of them (all).
        `witness`: a witness votes, too, in the namespace of the last node, which is none of the cluster's then.
        `plant`: a fault in every node, whose binary is `build.breakable`'s. `small_disk`: what this node (from 1) stores lies on
        a disk of a few megabytes, until it is started again. `closed`: how long nodes remember closed connections, if not as their profile says."""
        self.lab = lab
        self._binary = binary
        self._hugepages = hugepages
        self._steering_cache = steering_cache
        self._log = log
        self._witness: Process | None = None
        self._with_witness = witness
        self._plant = [] if plant is None else ["--plant", plant]
        self._small_disk = small_disk
        self._closed = closed
        self._processes: list[Process] = []
        self.names = [f"n{number}" for number in range(1, (begin or len(lab.nodes)) + 1)]

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Writes the configuration, starts all nodes and waits until they are ready."""
        (self.lab.directory / "cluster.toml").write_text(cluster_file(self.names, len(self.lab.servers), self._log))
        if self._log:
            # What an earlier cluster of this laboratory has left.
            for left in ("pki", *(f"log-{name}" for name in (*self.names, WITNESS))):
                shutil.rmtree(self.lab.directory / left, ignore_errors=True)
            output([str(self._binary), "cluster", "init", str(self._pki()), "--node", *self.names, WITNESS])
        if self._with_witness:
            self._start_witness()
        for number in range(1, len(self.names) + 1):
            text = node_file(number, self._socket(number), self._hugepages, self._steering_cache, self._closed)
            self._file(number).write_text(text + (log_part(number) if self._log else "") + self._witness_part())
            self._processes.append(self._spawn(number, ["--new-cluster"] if self._log else []))
        self.wait_ready()

    def _spawn(self, number: int, options: list[str]) -> Process:
        # One that an earlier node left would look like a node that is coming up.
        self._socket(number).unlink(missing_ok=True)
        command = [str(self._binary), "run", "-c", str(self._file(number)), *options, *self._plant]
        if number == self._small_disk:
            self._small_disk = None
            self.stored(number).mkdir()
            # `ip netns exec` gives each process a mount namespace of its own, which ends with it.
            mount = f"mount -t tmpfs -o size={DISK_BYTES} log {self.stored(number)}"
            command = ["sh", "-c", f'{mount} && exec "$@"', "sh", *command]
        return self.lab.node(number).spawn(command, f"steerage-{self.names[number - 1]}.log")

    def _witness_address(self) -> str:
        return f"{plan.management(len(self.lab.nodes))}:{plan.LOG_PORT}"

    def _witness_part(self) -> str:
        if not self._with_witness:
            return ""
        return f'\n[[log.witness]]\nname = "{WITNESS}"\naddress = "{self._witness_address()}"\n'

    def _start_witness(self) -> None:
        voters = [(number - 1, name, f"{plan.management(number)}:{plan.LOG_PORT}") for number, name in enumerate(self.names, 1)]
        voters.append((1000, WITNESS, self._witness_address()))
        text = f"""\
id = 1000
name = "{WITNESS}"
listen = "{self._witness_address()}"
data = "log-{WITNESS}"
ca = "pki/ca.crt"
certificate = "pki/{WITNESS}.crt"
key = "pki/{WITNESS}.key"
"""
        for number, name, address in voters:
            text += f'\n[[voters]]\nid = {number}\nname = "{name}"\naddress = "{address}"\n'
        file = self.lab.directory / "witness.toml"
        file.write_text(text)
        self._witness = self.lab.nodes[-1].spawn([str(self._binary), "witness", str(file)], "witness.log")

    def _pki(self) -> Path:
        return self.lab.directory / "pki"

    def join(self, number: int, drained: bool = False) -> None:
        """Lets node `number`, the next one, join, with a SNAT address of each family, and starts it."""
        name = f"n{number}"
        self.names.append(name)
        output([str(self._binary), "cluster", "certificate", str(self._pki()), name])
        management = f"{plan.management(number)}:{plan.LOG_PORT}"
        where = ["--backplane", plan.backplane(number), "--workers", "1", "--management", management]
        self.admin(1, ["node", "add", name, *where])
        if drained:
            self.admin(1, ["node", "drain", name])
        for family in plan.FAMILIES:
            self.admin(1, ["set", f"snat/{plan.front(plan.SNAT + number, family)}", f"node={name}"])
        shared = self.lab.directory / f"cluster-{name}.toml"
        shared.write_text(cluster_file(self.names, len(self.lab.servers), self._log))
        text = node_file(number, self._socket(number), self._hugepages, self._steering_cache, self._closed)
        self._file(number).write_text(text.replace("cluster.toml", shared.name) + log_part(number))
        self._processes.append(self._spawn(number, []))

    def admin(self, number: int, command: list[str]) -> str:
        """What node `number`, from 1, says to a `steerage` command."""
        return output([str(self._binary), *command, "--socket", str(self._socket(number))], timeout=15).stdout

    def rest(self, number: int, method: str, target: str, body: str = "") -> tuple[int, dict]:
        """Status and body of what the admin API of node `number`, from 1, answers."""
        command = ["curl", "-sS", "--max-time", "15", "--unix-socket", str(self._socket(number)), "-X", method]
        said = output([*command, "-d", body, "-w", "\n%{http_code}", f"http://node{target}"]).stdout
        answer, _, status = said.rpartition("\n")
        return int(status), json.loads(answer)

    def stored(self, number: int, seen_by: Process | None = None) -> Path:
        """Where node `number`, from 1, stores its part of the log; as that process sees it, if it runs on a small disk."""
        directory = self.lab.directory / f"log-n{number}"
        return Path(f"/proc/{seen_by.pid}/root{directory}") if seen_by else directory

    def status(self, number: int) -> dict:
        """The cluster as node `number`, from 1, sees it: `steerage status --json`."""
        return json.loads(self.admin(number, ["status", "--json"]))

    def kill(self, number: int) -> None:
        """Kills node `number`, from 1, as a power cut would."""
        self.process(number).signal(signal.SIGKILL)
        self.process(number).wait(5)

    def start_again(self, number: int) -> None:
        """Starts node `number`, from 1, which has ended, with what it has stored."""
        self._processes[number - 1] = self._spawn(number, [])

    def renew(self, number: int, plant: str | None = None) -> None:
        """Stops node `number`, from 1, and starts it with what it has stored, and another fault or none."""
        self.process(number).stop()
        self._plant = [] if plant is None else ["--plant", plant]
        self.start_again(number)

    def stop(self) -> list[int]:
        """Ends all nodes by SIGTERM; returns their exit codes in order."""
        codes = [process.stop() for process in self._processes]
        self._processes.clear()
        if self._witness is not None:
            self._witness.stop()
        for name in self.names:
            # Empty, or of another process that is more than a laboratory's.
            with contextlib.suppress(OSError):
                (RUNTIME / f"steerage-{name}").rmdir()
        return codes

    def process(self, number: int) -> Process:
        """The process of node `number`, from 1."""
        return self._processes[number - 1]

    def check(self) -> None:
        """NodeEnded if a node doesn't run any more."""
        for name, process in zip(self.names, self._processes):
            if not process.running():
                raise NodeEnded(f"node {name} ended {process.how()}:\n{process.tail()}")

    def wait_ready(self) -> None:
        """Waits until every node says that it is ready; LabError with its last words if one ends or takes too long."""
        end = time.monotonic() + READY_SECONDS
        for number, name in enumerate(self.names, 1):
            while not self._ready(number):
                self.check()
                if time.monotonic() > end:
                    tail = self.process(number).tail()
                    raise LabError(f"node {name} is not ready after {READY_SECONDS} s:\n{tail}")
                time.sleep(0.05)

    def _ready(self, number: int) -> bool:
        if not self._socket(number).exists():
            return False
        done = output(self._stats_command(number), check=False, timeout=5)
        return done.returncode == 0 and json.loads(done.stdout).get("ready") is True

    def stats(self, number: int) -> dict:
        """Counters of node `number`, from 1, as `steerage stats --json` gives them."""
        return json.loads(output(self._stats_command(number), timeout=5).stdout)

    def totals(self) -> list[dict]:
        """The totals of each node, in order."""
        return [self.stats(number)["totals"] for number in range(1, len(self.names) + 1)]

    def virtual_server(self, number: int, name: str) -> dict:
        """Counters of a virtual server at node `number`, from 1."""
        return next(found for found in self.stats(number)["virtual_servers"] if found["name"] == name)

    def explain(self, number: int, protocol: str, source: str, destination: str) -> dict:
        """What node `number`, from 1, says of a tuple, as `steerage explain --json` gives it."""
        command = [str(self._binary), "explain", "--json", "--socket", str(self._socket(number))]
        return json.loads(output([*command, protocol, source, destination], timeout=5).stdout)

    def explanations(self, number: int, protocol: str, tuples: list[tuple[str, str]]) -> list[dict]:
        """The same of many tuples at once, each a source and a destination, in order."""
        there = f"http://node/v1/explain?protocol={protocol}"
        urls = [f'url = "{there}&source={source}&destination={destination}"' for source, destination in tuples]
        # One process asks for all; -g: brackets of IPv6 addresses are no globs.
        command = ["curl", "-gsS", "--fail-early", "--fail", "--unix-socket", str(self._socket(number)), "-w", "\n", "-K", "-"]
        return [json.loads(line) for line in output(command, stdin="\n".join(urls)).stdout.splitlines()]

    def wait_rest(self, number: int) -> None:
        """Waits until every bucket is where it stays, and node `number`, from 1, has nothing left of what it gave away. What the first
        node says of owners then holds until something happens."""
        end = time.monotonic() + REST_SECONDS
        while True:
            status = self.status(1)
            moving = sum(group["moving"] + group["unowned"] for group in status["groups"])
            leaving = sum(sum(node["leaving"].values()) for node in status["nodes"] if node["name"] == f"n{number}")
            if moving + leaving == 0:
                return
            if time.monotonic() > end:
                raise LabError(f"after {REST_SECONDS} s {moving} buckets are to move and n{number} has sessions of {leaving} others'")
            time.sleep(0.1)

    def wait_quiet(self, seconds: float) -> None:
        """Waits until nothing has been decided for so long, as the first node sees it."""
        end, known = time.monotonic() + REST_SECONDS, (0, 0.0)
        while time.monotonic() < end:
            index, now = self.status(1)["index"], time.monotonic()
            if index != known[0]:
                known = (index, now)
            elif now - known[1] > seconds:
                return
            time.sleep(0.1)
        raise LabError(f"something is decided all the time: entry {known[0]}")

    def _stats_command(self, number: int) -> list[str]:
        return [str(self._binary), "stats", "--json", "--socket", str(self._socket(number))]

    def _file(self, number: int) -> Path:
        return self.lab.directory / f"node-n{number}.toml"

    def _socket(self, number: int) -> Path:
        return self.lab.directory / f"n{number}.sock"


def node_file(number: int, socket: Path, hugepages: bool, steering_cache: bool, closed: str | None = None) -> str:
    """Configuration of node `number`, from 1."""
    host = plan.NODES + number
    timeouts = f'\n[timeouts]\nclosed = "{closed}"\n' if closed else ""
    addresses = ", ".join(f'"{plan.front(host, family)}/{plan.FRONT_LENGTH[family]}"' for family in plan.FAMILIES)
    return f"""\
profile = "lab"
cluster = "cluster.toml"

[node]
name = "n{number}"
admin_socket = "{socket}"

[workers]
count = 1

[tables]
steering_cache = {_toml(steering_cache)}
{timeouts}

[dpdk]
hugepages = {_toml(hugepages)}

[[port]]
name = "front"
role = "front"
device = "net_af_xdp0,iface=front"
mtu = {plan.FRONT_MTU}

[[port]]
name = "back"
role = "backplane"
device = "net_af_xdp1,iface=back"
mtu = {plan.BACKPLANE_MTU}

[[interface]]
name = "lan"
port = "front"
addresses = [{addresses}]

[[route]]
to = "{plan.CLIENTS}"
via = "{plan.front(plan.CLIENT, 4)}"
"""


def log_part(number: int) -> str:
    """What lets node `number`, from 1, decide together with the others."""
    return f"""
[log]
directory = "log-n{number}"
ca = "pki/ca.crt"
certificate = "pki/n{number}.crt"
key = "pki/n{number}.key"
"""


def cluster_file(names: list[str], servers: int, checks: bool = False) -> str:
    """Configuration that all nodes share. Every virtual server is there for each family, named NAME-v4 and NAME-v6;
    with UDP NAME-udp-v4 …, and with real servers of the other family NAME-cross-v4 … `checks`: real servers are probed."""
    parts = [f'[cluster]\nkey = "{KEY}"\nbackplane_prefix = {plan.BACKPLANE_LENGTH}\n']
    for number, name in enumerate(names, 1):
        parts.append(
            f'[[node]]\nname = "{name}"\nbackplane = "{plan.backplane(number)}"\nworkers = 1\n'
            f'management = "{plan.management(number)}:{plan.LOG_PORT}"\n'
        )
    groups = {name: members for name, members in plan.GROUPS.items() if max(members) <= len(names)}
    for name, members in groups.items():
        parts.append(f'[[group]]\nname = "{name}"\nmembers = {_toml([f"n{member}" for member in members])}\n')
    for host, group, node in plan.snats(len(names)):
        if group == "all" or group in groups:
            for family in plan.FAMILIES:
                address = plan.front(host, family)
                parts.append(f'[[snat]]\naddress = "{address}"\ngroup = "{group}"\nnode = "n{node}"\n')
    for vip in plan.VIPS.values():
        if vip.group != "all" and vip.group not in groups:
            continue
        for family in plan.FAMILIES:
            other = 10 - family
            parts.append(_virtual_server(vip, "", family, plan.HTTP_PORT, "tcp", family, servers, checks))
            parts.append(_virtual_server(vip, "-udp", family, plan.UDP_PORT, "udp", family, servers, checks))
            if vip.forward in ("ipip", "gue"):
                parts.append(_virtual_server(vip, "-cross", family, plan.CROSS_PORT, "tcp", other, servers, checks))
    return "\n".join(parts)


def _virtual_server(vip: plan.Vip, kind: str, family: int, port: int, protocol: str, inside: int, servers: int, checks: bool) -> str:
    lines = [
        "[[virtual_server]]",
        f'name = "{vip.name}{kind}-v{family}"',
        f'address = "{vip.address(family)}"',
        f"port = {port}",
        f'protocol = "{protocol}"',
        f'group = "{vip.group}"',
        f'forward = "{vip.forward}"',
        f'ingress = "{vip.ingress}"',
    ]
    if checks:
        kind = "tcp" if protocol == "tcp" else "icmp"
        lines += [f'health = {{ type = "{kind}", interval = "1s", timeout = "500ms", rise = 2, fall = 2 }}']
    for number in range(1, servers + 1):
        lines += [
            "",
            "[[virtual_server.real_server]]",
            f'name = "s{number}"',
            f'address = "{plan.front(plan.SERVERS + number, inside)}"',
            f"port = {port}",
            "weight = 1",
        ]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    # JSON's booleans and arrays of strings are TOML's.
    return json.dumps(value)

"""The demonstration: web requests through three nodes, and what became of them.

`python3 -m lab.demo`, started by `scripts/demo`. Exit code 0 only if no request failed or hung, every node ran to the
end, steered packets to others and took packets that others steered to it.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import build, cluster, hugepages, living, load, plan
from .errors import LabError, NodeEnded
from .lab import Interrupted, Lab

CONNECTIONS = 16
# Virtual server, and whether connections are kept for further requests. Each phase runs IPv4 and IPv6 side by side.
PHASES = (("nat", True), ("nat", False), ("dsr", True), ("dsr", False))


@dataclass
class Phase:
    """A phase's name and what its load saw."""

    name: str
    result: load.Result = field(default_factory=load.Result)


@dataclass
class Report:
    """What a demonstration found."""

    phases: list[Phase] = field(default_factory=list)
    # Why it ended early, if it did.
    broken: str | None = None
    # As `steerage stats --json` gives them, of the nodes that answered.
    stats: list[dict] = field(default_factory=list)
    # The acts of a living cluster, if they were played.
    stage: living.Stage | None = None
    # HTTP requests that each server answered.
    servers: dict[str, int] = field(default_factory=dict)

    def total(self) -> load.Result:
        """All phases together."""
        total = load.Result()
        for phase in self.phases:
            total.add(phase.result)
        return total

    def nodes(self) -> list[dict]:
        """What each node did, with the keys of the JSON report."""
        rows = []
        for stats in self.stats:
            totals = stats["totals"]
            row = {"name": stats["node"]}
            row |= {key: totals[key] for key in ("rx", "steered_out", "steered_in", "sessions")}
            row["drops"] = totals["drops_total"]
            rows.append(row)
        return rows

    def as_json(self) -> dict:
        """The report for machines; latencies in milliseconds."""
        total = self.total()
        return {
            "requests": total.requests,
            "failed": total.failed,
            "p50_ms": round(total.quantile(0.5), 3),
            "p99_ms": round(total.quantile(0.99), 3),
            "nodes": self.nodes(),
            "servers": [{"name": name, "requests": count} for name, count in self.servers.items()],
            "phases": [
                {"name": phase.name, "requests": phase.result.requests, "failed": phase.result.failed}
                for phase in self.phases
            ],
            "acts": [
                {"name": act.name, "excused": act.excused.total()}
                | {kind: [result.requests, result.failed] for kind, result in act.results.items()}
                for act in (self.stage.acts if self.stage else [])
            ],
            "fault": self.fault(),
        }

    def fault(self) -> str | None:
        """Why the demonstration failed, as one line (and a node's last words below it); None if it didn't."""
        if self.broken:
            return self.broken
        total = self.total()
        if total.failed:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in sorted(total.failures.items()))
            return f"{total.failed} of {total.requests} requests failed: {reasons}"
        if not total.requests:
            return "no request was made"
        for node in self.nodes():
            for key, what in (("steered_out", "steered no packet to others"), ("steered_in", "got no steered packet")):
                if not node[key]:
                    return f"node {node['name']} {what}"
        return self.stage.fault() if self.stage else None

    def text(self) -> str:
        """The report for people."""
        parts = [table(["node", "received", "steered out", "steered in", "sessions", "drops"], map(values, self.nodes()))]
        dropped = [
            f"{stats['node']}: " + ", ".join(f"{name} {count}" for name, count in drops.items())
            for stats in self.stats
            if (drops := {name: count for name, count in drops_of(stats).items() if count})
        ]
        if dropped:
            parts.append("drops by reason\n  " + "\n  ".join(dropped))
        answered = sum(self.servers.values()) or 1
        rows = [[name, count, f"{100 * count / answered:.1f} %"] for name, count in self.servers.items()]
        parts.append(table(["server", "requests", "share"], rows))
        rows = [
            [phase.name, r.requests, r.failed, round(r.requests / (r.seconds or 1)), ms(r.quantile(0.5)), ms(r.quantile(0.99))]
            for phase in self.phases
            for r in [phase.result]
        ]
        total = self.total()
        rows.append(["all", total.requests, total.failed, "", ms(total.quantile(0.5)), ms(total.quantile(0.99))])
        parts.append(table(["phase", "requests", "failed", "per second", "p50", "p99"], rows))
        if self.stage:
            head = ["act", "requests", *(f"failed {kind}" for kind in living.KINDS), "excused"]
            parts.append(table(head, (act.row() for act in self.stage.acts)))
            if self.stage.notes():
                parts.append("excused\n  " + "\n  ".join(self.stage.notes()))
        return "\n\n".join(parts)


def values(row: dict) -> list:
    """A row's cells."""
    return list(row.values())


def drops_of(stats: dict) -> dict[str, int]:
    """Dropped packets of a node by reason."""
    found: dict[str, int] = {}
    for worker in stats["workers"]:
        for name, count in worker["drops"].items():
            found[name] = found.get(name, 0) + count
    return found


def ms(milliseconds: float) -> str:
    """A latency."""
    return f"{milliseconds:.2f} ms"


def table(head: list[str], rows) -> str:
    """A table: the first column to the left, the others to the right."""
    cells = [head] + [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def drive(lab: Lab, nodes: cluster.Cluster, seconds: float, report: Report) -> None:
    """Runs all phases, which share the time, and reports them. What is in the way of one does not end the others, unless
    it is a node's end."""
    for name, keepalive in PHASES:
        vip = plan.VIPS[name]
        title = f"{vip.forward}, {'kept connections' if keepalive else 'one connection a request'}"
        print(f"  {title}, IPv4 and IPv6 …", flush=True)
        targets = [vip.url(family) for family in plan.FAMILIES]
        phase = Phase(title)
        report.phases.append(phase)
        try:
            load.run(lab.client, targets, seconds / len(PHASES), CONNECTIONS, keepalive, nodes.check, phase.result)
            nodes.check()
        except NodeEnded as error:
            report.broken = str(error)
            return
        except LabError as error:
            phase.result.fail(str(error))


def observe(lab: Lab, nodes: cluster.Cluster, seconds: float) -> Report:
    """Runs the load on nodes that are ready, and asks all for their counters."""
    report = Report()
    before = lab.requests()
    drive(lab, nodes, seconds, report)
    for number in range(1, len(nodes.names) + 1):
        if nodes.process(number).running():
            try:
                report.stats.append(nodes.stats(number))
            except LabError as error:
                report.broken = report.broken or str(error)
    report.servers = {name: count - before[name] for name, count in lab.requests().items()}
    return report


def show(options: argparse.Namespace) -> Report:
    """Builds, runs everything, and takes it down again."""
    binary = build.product()
    with Lab(nodes=4) as lab, hugepages.reserved(4 * hugepages.NODE) as pages:
        print("starting 3 nodes" + ("" if pages else ", without hugepages"), flush=True)
        with cluster.Cluster(lab, binary, pages, log=True, begin=3) as nodes:
            lab.deal([1, 2, 3])
            report = observe(lab, nodes, options.seconds)
            if not options.brief and not report.fault():
                live(lab, nodes, report)
            if options.keep:
                keep(lab, report)
    return report


def live(lab: Lab, nodes: cluster.Cluster, report: Report) -> None:
    """Plays the acts."""
    stage = living.Stage(lab, nodes, lambda line: print(line, flush=True))
    report.stage = stage
    try:
        stage.play()
    except LabError as error:
        report.broken = str(error)


def keep(lab: Lab, report: Report) -> None:
    """Leaves everything running until Ctrl-C."""
    print(report.text())
    print(f"\nkept: try `ip netns exec {lab.client.name} curl {plan.VIPS['nat'].url(4)}`; files are in {lab.directory}")
    print("Ctrl-C ends it", flush=True)
    try:
        while True:
            time.sleep(3600)
    except Interrupted:
        print()


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="demo", description="Real web traffic through three nodes in namespaces.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON too")
    parser.add_argument("--seconds", metavar="N", type=int, default=20, help="length of the load (default 20, at least 4)")
    parser.add_argument("--brief", action="store_true", help="leave the acts out: the load alone")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    found = parser.parse_args(arguments)
    if found.seconds < len(PHASES):
        parser.error(f"--seconds must be at least {len(PHASES)}")
    if found.json:
        there = found.json.exists()
        try:
            # A run must not be for nothing. What is in the file stays until there is a report.
            found.json.open("a").close()
            if not there:
                found.json.unlink()
        except OSError as error:
            parser.error(f"--json: {found.json} can't be written: {error.strerror}")
    return found


def main(arguments: list[str]) -> int:
    """Runs the demonstration; returns the exit code."""
    chosen = options(arguments)
    try:
        report = show(chosen)
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    if not chosen.keep:
        print("\n" + report.text())
    if chosen.json:
        chosen.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    fault = report.fault()
    if fault:
        print(f"\nfailed: {fault}", file=sys.stderr)
        return 1
    other = "other " if report.stage and report.stage.notes() else ""
    print(f"\nno {other}request failed, and every node steered packets both ways")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Interrupted as interrupted:
        print("interrupted; all cleaned up", file=sys.stderr)
        sys.exit(interrupted.code)
    except KeyboardInterrupt:
        # Before there was a laboratory.
        sys.exit(130)

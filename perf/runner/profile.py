"""Instructions and samples of a worker's turns, by the stage whose code they belong to."""
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from runner.program import Failed

BURST = 32
SECONDS = 2

# The first that a source's path holds, from the innermost inlined function outwards. What stands nowhere here (formats,
# values, the standard library) belongs to whoever called it.
STAGES = [
    ("base/hash.rs", "hash"),
    ("table/index.rs", "lookup"),
    ("table/flow.rs", "lookup"),
    ("table/session.rs", "lookup"),
    ("table/counter.rs", "counters"),
    ("path/counters.rs", "counters"),
    ("table/maglev.rs", "select"),
    ("table/placement.rs", "steer"),
    ("path/parse.rs", "parse"),
    ("path/steer.rs", "steer"),
    ("path/backplane.rs", "backplane"),
    ("path/select.rs", "select"),
    ("path/track.rs", "track"),
    ("path/rewrite.rs", "rewrite"),
    ("path/egress.rs", "egress"),
    ("src/io/", "io"),
    ("perf/lab/", "io"),
    ("arrayqueue", "io"),
    ("path/worker.rs", "turn"),
    ("path/stages.rs", "turn"),
    ("src/path/", "other stages"),
]
# Functions that are called, not inlined, so that nobody's name is around them.
CALLED = [("wire/checksum.rs", "rewrite"), ("src/wire/", "rewrite"), ("src/view/", "rewrite"), ("table/route.rs", "egress")]
TIMERS = re.compile(r"::(sweep|chores|expire_\w+|step)\b|\b(sweep|chores|expire_session|expire_steering)\b")
ORDER = ["io", "copies", "parse", "backplane", "hash", "lookup", "track", "steer", "select", "rewrite", "egress", "counters", "timers",
         "turn", "other stages", "other"]


def stage(frames):
    """The stage of an address whose frames, innermost first, are (function, file:line)."""
    if any(TIMERS.search(function) for function, _ in frames):
        return "timers"
    for places in (STAGES, CALLED):
        for _, where in frames:
            for part, name in places:
                if part in where:
                    return name
    if any("memcpy" in function or "memmove" in function for function, _ in frames):
        return "copies"
    return "other"


class Lines:
    """The lines of code behind a program's addresses."""

    def __init__(self, program, addresses):
        self.frames = {}
        asked = "\n".join(f"{a:#x}" for a in addresses)
        command = ["addr2line", "--inlines", "--functions", "--demangle", "--addresses", "--exe", program]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"addr2line: {done.stderr}")
        current = None
        texts = iter(done.stdout.splitlines())
        for text in texts:
            if text.startswith("0x") and " " not in text:
                current = self.frames.setdefault(int(text, 16), [])
            else:
                current.append((text, next(texts)))


def _by_stage(program, weights):
    """Weight of each stage, and of each line that says most, from weights of addresses."""
    known = Lines(program, weights)
    stages, places = Counter(), Counter()
    for address, weight in weights.items():
        frames = known.frames.get(address, [])
        name = stage(frames)
        stages[name] += weight
        own = [where for _, where in frames if "/src/" in where and "/rustc/" not in where] or [w for _, w in frames] or ["?"]
        places[name, re.sub(r"^.*/(src|perf)/", r"\1/", own[0]).partition(" ")[0]] += weight
    return stages, places


def instructions(lab, row, turns):
    """Instructions of so many turns, by stage and by line."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = ["valgrind", "--tool=callgrind", "--dump-instr=yes", "--compress-pos=no", "--compress-strings=no",
                   "--collect-atstart=no", "--toggle-collect=*profiled*", f"--callgrind-out-file={out}",
                   lab, "stage", *row, "--turns", str(turns)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not out.exists():
            raise Failed(f"valgrind: {done.stderr[-2000:]}")
        weights, others = _callgrind(out.read_text(), lab)
    stages, places = _by_stage(lab, weights)
    for name, weight in others.items():
        kind = "copies" if "mem" in name else "other"
        stages[kind] += weight
        places[kind, name] += weight
    return stages, places


def _callgrind(text, lab):
    """Own instructions of each address of the program, and of each function elsewhere, from callgrind's output."""
    weights, others = Counter(), Counter()
    ours, function, skip = False, "?", False
    for line in text.splitlines():
        if line.startswith("ob="):
            ours = line.endswith(Path(lab).name)
        elif line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            skip = True  # the next line is what the called function took, which is counted there
        elif line.startswith("0x"):
            if skip:
                skip = False
                continue
            parts = line.split()
            if ours:
                weights[int(parts[0], 16)] += int(parts[-1])
            else:
                others[function] += int(parts[-1])
    return weights, others


def samples(lab, row):
    """Samples of the processor's clock, by stage and by line; None where perf can't take any."""
    tool = shutil.which("perf")
    if not tool:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        with subprocess.Popen([lab, "stage", *row, "--turns", "0"], stdout=subprocess.PIPE, text=True) as running:
            try:
                json.loads(running.stdout.readline())
                mapped = _text_mapping(running.pid, lab)
                command = [tool, "record", "-q", "-e", "cpu-clock", "-F", "9999", "-o", str(data), "-p", str(running.pid),
                           "--", "sleep", str(SECONDS)]
                taken = subprocess.run(command, capture_output=True, text=True, check=False)
            finally:
                running.kill()
        if taken.returncode:
            return None
        script = subprocess.run([tool, "script", "-i", str(data), "-F", "ip,sym"], capture_output=True, text=True, check=False)
    weights, others = Counter(), Counter()
    for line in script.stdout.splitlines():
        parts = line.split(None, 1)
        if not parts:
            continue
        address = int(parts[0], 16)
        if mapped[0] <= address < mapped[1]:
            weights[address - mapped[0] + mapped[2]] += 1
        else:
            others[parts[1] if len(parts) > 1 else "?"] += 1
    if sum(weights.values()) < 100:
        return None
    stages, places = _by_stage(lab, weights)
    for name, weight in others.items():
        kind = "copies" if "mem" in name else "other"
        stages[kind] += weight
        places[kind, name] += weight
    return stages, places


def _text_mapping(pid, lab):
    """Start and end of the program's code in memory, and the address in the file that the start is."""
    headers = subprocess.run(["readelf", "-lW", lab], capture_output=True, text=True, check=True).stdout
    loads = re.findall(r"LOAD\s+(0x\w+) (0x\w+) 0x\w+ (0x\w+) 0x\w+ R E", headers)
    offset, address, _ = (int(x, 16) for x in loads[0])
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, at = line.split()[:3]
        if "x" in rights and line.endswith(Path(lab).name):
            start, end = (int(x, 16) for x in span.split("-"))
            return start, end, int(at, 16) - offset + address
    raise Failed("the program's code is not where it was looked for")


def table(row, counted, sampled, ns, packets):
    """Prints instructions and nanoseconds a packet of each stage."""
    instructions_of = counted[0]
    shares = (sampled or counted)[0]
    source = "samples of perf's cpu-clock" if sampled else "share of the instructions (perf took no samples)"
    total, all_shares = sum(instructions_of.values()), sum(shares.values())
    print(f"\n{row}: {ns:.1f} ns and {total / packets:.0f} instructions a packet; ns of a stage by {source}\n")
    print(f"{'stage':<14}{'instructions':>14}{'ns':>8}{'share of ns':>13}")
    for name in ORDER:
        if instructions_of[name] or shares[name]:
            part = shares[name] / all_shares
            print(f"{name:<14}{instructions_of[name] / packets:>14.1f}{part * ns:>8.1f}{part:>13.1%}")
    print(f"{'all':<14}{total / packets:>14.1f}{ns:>8.1f}{1:>13.1%}")


def lines(counted, sampled, ns, packets, most):
    """Prints the lines of code with the most of the time."""
    places = (sampled or counted)[1]
    total = sum(places.values())
    print(f"\n{'ns':>6}{'instructions':>14}  line")
    for (name, where), weight in places.most_common(most):
        print(f"{weight / total * ns:>6.1f}{counted[1][name, where] / packets:>14.1f}  {name}: {where}")

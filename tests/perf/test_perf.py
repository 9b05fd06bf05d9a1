"""The performance laboratory itself: what it writes, what it compares, and how it refuses. No figure is judged here."""

import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN, STAGES = ROOT / "perf" / "run", ROOT / "perf" / "stages"
PRODUCT = ["dsr_ipip", "dsr_gue", "dsr_l2", "dsr_session", "nat_hit", "nat_hit_tcp", "nat_reply", "nat_new"]
PRODUCT += ["steered_out", "steered_in"]
LIMITS = ["io_only", "limit_stateless", "limit_hit"]
FIELDS = {
    "name", "family", "flows", "io", "ns_per_packet", "spread", "least", "mpps", "ratio_to_limit",
    "p50_turn_ns", "p99_turn_ns", "max_turn_ns", "runs", "speedup", "reason",
}  # fmt: skip
FLOWS = 4096


def run(program, *arguments, **environment):
    env = dict(os.environ, **environment)
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=900, check=False, env=env
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """All rows with few flows, measured once: what they wrote, and what they printed."""
    path = tmp_path_factory.mktemp("perf") / "p.json"
    rows, printed, whole = [], "", {}
    for narrowed in (["--io", "memory"], ["--io", "null", "--family", "ipv4"]):
        done = run(RUN, "--quick", "--flows", FLOWS, "--json", path, *narrowed)
        assert done.returncode == 0, done.stderr
        whole = json.loads(path.read_text())
        rows += whole["rows"]
        printed += done.stdout
    return dict(whole, rows=rows), printed


def row(result, name, family, io):
    found = [r for r in result[0]["rows"] if (r["name"], r["family"], r["io"]) == (name, family, io)]
    assert len(found) == 1, f"{len(found)} rows {name} {family} {io}"
    return found[0]


def test_every_row_has_the_same_fields(result):
    for r in result[0]["rows"]:
        assert r.keys() == FIELDS, r["name"]
        assert r["ns_per_packet"] is None or r["least"] <= r["ns_per_packet"], r


def test_every_row_is_there_and_makes_sense(result):
    assert max(r["spread"] or 0 for r in result[0]["rows"] if r["io"] == "memory") > 0, "not measured, or once"
    for io, families in [("memory", ["ipv4", "ipv6"]), ("null", ["ipv4"])]:
        for family in families:
            for name in PRODUCT + LIMITS:
                r = row(result, name, family, io)
                assert r["flows"] == FLOWS
                assert 1 < r["ns_per_packet"] < 20_000, r
                assert r["mpps"] == pytest.approx(1e3 / r["ns_per_packet"], rel=0.01)
                # A turn has 32 packets; and others may have the machine for a while, in one of the two but not the other.
                assert r["p50_turn_ns"] <= r["p99_turn_ns"] <= r["max_turn_ns"], r
                assert 32 * r["least"] / 3 < r["p50_turn_ns"] < 32 * r["ns_per_packet"] * 3, r
                assert name in result[1]
            for name, limit in [("dsr_ipip", "limit_stateless"), ("nat_hit", "limit_hit"), ("steered_in", "limit_hit")]:
                mine, bare = row(result, name, family, io), row(result, limit, family, io)
                ratio = mine["ns_per_packet"] / bare["ns_per_packet"]
                assert ratio / 3 < mine["ratio_to_limit"] < ratio * 3, (mine, bare)
                assert bare["ratio_to_limit"] is None
            assert row(result, "nat_new", family, io)["ratio_to_limit"] is None
            cheapest = row(result, "io_only", family, io)["least"]
            assert all(row(result, n, family, io)["least"] > cheapest for n in PRODUCT + LIMITS[1:])


def test_testpmd_two_workers_and_bytes(result):
    testpmd = row(result, "testpmd_macswap", None, "null")
    assert 1 < testpmd["ns_per_packet"] < 1000 and testpmd["spread"] > 0 and testpmd["runs"] == 5
    for family in ["ipv4", "ipv6"]:
        pair = row(result, "two_workers", family, "memory")
        assert 0.5 < pair["speedup"] < 3 if pair["speedup"] else pair["reason"]
    names = {f"{kind}_{family}" for kind in ["dsr", "nat", "steering"] for family in ["ipv4", "ipv6"]}
    assert result[0]["bytes_per_flow"].keys() == names
    for name, value in result[0]["bytes_per_flow"].items():
        assert 40 < value <= (96 if name.startswith("nat") else 64), name
        assert value == pytest.approx(result[0]["bytes_per_flow_measured"][name], rel=0.03)
    assert {"cpu", "cores", "kernel", "memory_bytes", "load"} <= result[0]["machine"].keys()


def test_capsules_rows_when_asked_for(result, tmp_path):
    assert not [r for r in result[0]["rows"] if "capsule" in r["name"]], "a quick run does without"
    path = tmp_path / "c.json"
    rows = ["capsule_dsr_ipip", "capsule_io"]
    # Built as the tests are, of which most is there.
    built = {"STEERAGE_PROFILE": "test", "STEERAGE_FEATURES": "sim"}
    done = run(RUN, "--quick", "--family", "ipv4", "--json", path, *rows, **built)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {r["name"]: r for r in json.loads(path.read_text())["rows"]}
    assert list(rows) == ["capsule_dsr_ipip", "capsule_io"]
    for r in rows.values():
        assert r.keys() == FIELDS and r["io"] == "null", r
        if r["ns_per_packet"] is None:
            assert "core" in r["reason"]
            continue
        assert 1 < r["least"] <= r["ns_per_packet"] < 1000 and r["runs"] > 1, r
        assert r["ratio_to_limit"] is None and r["p50_turn_ns"] is None
    if rows["capsule_io"]["ns_per_packet"]:
        assert rows["capsule_io"]["least"] < rows["capsule_dsr_ipip"]["least"]
        assert rows["capsule_dsr_ipip"]["family"] == "ipv4" and rows["capsule_io"]["family"] is None


@pytest.mark.parametrize(("factor", "code"), [(0.1, 1), (10, 0)])
def test_compare(result, tmp_path, factor, code):
    """The earlier run was ten times as fast, or ten times as slow."""
    old = dict(result[0], rows=[dict(r) for r in result[0]["rows"]])
    for r in old["rows"]:
        r["ns_per_packet"] = (r["ns_per_packet"] or 1) * factor
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    done = run(RUN, "--quick", "--flows", FLOWS, "--io", "memory", "--family", "ipv4", "dsr_l2", "--compare", path)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("SLOWER" in done.stdout) == (code == 1)
    assert "1 rows compared" in done.stdout


def test_what_counts_as_slower(capsys):
    sys.path.insert(0, str(ROOT / "perf"))
    from runner import compare

    new = {"name": "x", "family": "ipv4", "flows": 1, "io": "memory", "spread": 2.0}
    old = {("x", "ipv4", 1, "memory"): (100.0, 5.0)}
    for ns, code, mark in [(104, 0, None), (106, 0, "*"), (114.9, 0, "*"), (115.1, 1, "SLOWER"), (50, 0, None)]:
        assert compare.report(old, [dict(new, ns_per_packet=ns)]) == code, ns
        line = next(text for text in capsys.readouterr().out.splitlines() if text.startswith("x "))
        assert line.endswith(mark or f"{ns / 100:.2f}"), line
    assert compare.report(old, [dict(new, name="y", ns_per_packet=1)]) == 1, "nothing was compared"


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (RUN, ["dsr_upside_down"], 'no row "dsr_upside_down"'),
        (RUN, ["--flows", "0"], "--flows must be"),
        (RUN, ["--flows", "many"], "invalid int value"),
        (RUN, ["--family", "ipx"], "invalid choice"),
        (RUN, ["--json", "/nonexistent/p.json"], "no such directory"),
        (RUN, ["--json", "/tmp"], "it is a directory"),
        (RUN, ["nat_new", "--flows", "1"], "nothing to measure of nat_new"),
        (RUN, ["two_workers", "--flows", "1"], "nothing to measure of two_workers"),
        (RUN, ["testpmd_macswap", "--io", "memory"], "nothing to measure of testpmd_macswap"),
        (RUN, ["capsule_io", "--io", "memory"], "nothing to measure of capsule_io"),
        (RUN, ["--compare", "/nonexistent.json"], "No such file"),
        (RUN, ["--compare", str(Path(__file__))], "no results of perf/run"),
        (STAGES, ["upside_down"], "invalid choice"),
        (STAGES, ["--turns", "0"], "must be from 1"),
        (STAGES, ["nat_new", "--flows", "1"], "nat_new needs --flows of at least 4096"),
        (STAGES, ["--lines", "-1"], "--lines must be from 0"),
    ],
)
def test_bad_arguments(program, arguments, said):
    done = run(program, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_too_little_memory(monkeypatch):
    """Flows asked for by number end the run with an error; the largest number of a full run is left out."""
    loader = importlib.machinery.SourceFileLoader("perf_run", str(RUN))
    perf_run = importlib.util.module_from_spec(importlib.util.spec_from_loader("perf_run", loader))
    loader.exec_module(perf_run)
    monkeypatch.setattr(perf_run.machine, "free_memory", lambda: 1 << 30)
    with pytest.raises(perf_run.program.Failed, match="--flows 16000000: 1 GB of memory are free, 8 are needed"):
        perf_run.groups(perf_run.arguments(["--flows", "16000000"]))
    assert {flows for _, _, flows in perf_run.groups(perf_run.arguments([]))} == {1, 65_536, 1_000_000}


def test_stages():
    done = run(STAGES, "nat_hit", "--flows", "1", "--turns", "50", "--lines", "3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"ns of a stage by (samples|share)", done.stdout)
    rows = re.findall(r"^(\w[\w ]*?) +([\d.]+) +([\d.]+) +([\d.]+)%$", done.stdout, re.MULTILINE)
    table = {name: (float(instructions), float(ns), float(share)) for name, instructions, ns, share in rows}
    everything = table.pop("all")
    for i in range(3):
        assert sum(values[i] for values in table.values()) == pytest.approx(everything[i], rel=0.05)
    for name in ["io", "parse", "hash", "lookup", "rewrite", "egress"]:
        assert table[name][0] > 1, f"{name} takes instructions"
    # Each packet is attributed: what belongs to no stage is little.
    assert table.get("other", (0, 0, 0))[0] < 0.1 * everything[0]
    assert len(re.findall(r"^ +[\d.]+ +[\d.]+  \w.*: ", done.stdout, re.MULTILINE)) == 3


def test_a_stage_is_the_file_that_the_code_stands_in():
    sys.path.insert(0, str(ROOT / "perf"))
    from runner import profile

    std, turn = ("core::num::add", "/rustc/x/core/src/num.rs:1"), ("turn", "src/path/worker.rs:9")
    sip, flow = ("round", "src/base/hash.rs:3"), ("find", "src/table/flow.rs:8")
    for frames, stage in [
        ([std, sip, ("packet", "src/path/select.rs:1"), turn], "hash"),
        ([std, ("read", "src/wire/ipv4.rs:2"), ("packet", "src/path/parse.rs:4"), turn], "parse"),
        ([("write", "src/wire/ipv4.rs:2"), ("forward", "src/path/rewrite.rs:4"), turn], "rewrite"),
        ([std, flow, turn], "lookup"),
        ([flow, ("sweep", "src/path/worker.rs:300"), turn], "timers"),
        ([std, turn], "turn"),
        ([std], "other"),
        ([("sum", "src/wire/checksum.rs:9")], "rewrite"),
    ]:
        assert profile.stage(frames) == stage, frames

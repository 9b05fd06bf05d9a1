"""The demonstration's phases and judgement, with a stand-in for Steerage and the client routed straight to a server."""

import copy
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lab import Cluster, Lab, LabError, cluster, demo, hugepages, load, plan
from lab.namespace import names

HERE = Path(__file__).parent
STANDIN = HERE / "standin.py"


@pytest.fixture(scope="module")
def lab():
    with Lab() as made:
        yield made


def good_report() -> demo.Report:
    """A report without a fault."""
    report = demo.Report()
    for title, latency in (("one", 200), ("two", 900)):
        report.phases.append(demo.Phase(title, load.Result(requests=500, seconds=5, latencies=[(latency, 500)])))
    totals = {"rx": 100, "steered_out": 60, "steered_in": 50, "sessions": 7, "drops_total": 3, "tx": 1}
    for number in range(1, 4):
        workers = [{"drops": {"no_route": 1, "malformed": 0}}, {"drops": {"no_route": 2}}]
        report.stats.append({"node": f"n{number}", "workers": workers, "totals": dict(totals)})
    report.servers = {"s1": 750, "s2": 250}
    return report


def test_a_report_says_all():
    report = good_report()
    assert report.fault() is None
    found = report.as_json()
    assert (found["requests"], found["failed"], found["p50_ms"], found["p99_ms"]) == (1000, 0, 0.2, 0.9)
    node = {"name": "n1", "rx": 100, "steered_out": 60, "steered_in": 50, "sessions": 7, "drops": 3}
    assert found["nodes"][0] == node and len(found["nodes"]) == 3
    assert found["servers"] == [{"name": "s1", "requests": 750}, {"name": "s2", "requests": 250}]
    assert found["phases"][1] == {"name": "two", "requests": 500, "failed": 0}
    text = report.text()
    assert "n3         100" in text and "n2: no_route 3\n" in text and "malformed" not in text
    assert "75.0 %" in text and "0.90 ms" in text


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda r: r.phases[0].result.fail("HTTP status", 2), "2 of 1000 requests failed: 2 × HTTP status"),
        (lambda r: r.stats[1]["totals"].update(steered_out=0), "node n2 steered no packet to others"),
        (lambda r: r.stats[2]["totals"].update(steered_in=0), "node n3 got no steered packet"),
        (lambda r: r.phases.clear(), "no request was made"),
    ],
)
def test_a_fault_is_said_in_one_line(change, fault):
    report = copy.deepcopy(good_report())
    change(report)
    assert report.fault() == fault


@pytest.fixture
def served(lab):
    """The laboratory with one server for all: a stand-in forwards nothing."""
    nat, dsr = plan.VIPS["nat"], plan.VIPS["dsr"]
    server = lab.server(1).namespace
    server.ip([f"addr replace {nat.prefix(4)} dev lo", f"addr replace {nat.prefix(6)} dev lo nodad"])
    for vip in (nat, dsr):
        lab.route_to_server(vip, 1)
    return lab


def test_the_demonstration_drives_every_phase(served):
    with Cluster(served, STANDIN) as nodes:
        report = demo.observe(served, nodes, 4)
        assert [stats["node"] for stats in report.stats] == ["n1", "n2", "n3"]
        assert nodes.stop() == [0, 0, 0]
    assert report.fault() is None, report.text()
    assert len(report.phases) == 4 and all(phase.result.requests > 100 for phase in report.phases)
    assert report.servers["s1"] >= report.total().requests and report.servers["s2"] == 0


def test_a_killed_node_ends_the_demonstration_with_a_report(served):
    with Cluster(served, STANDIN) as nodes:
        threading.Timer(1.5, nodes.process(2).signal, [signal.SIGKILL]).start()
        begin = time.monotonic()
        report = demo.observe(served, nodes, 40)
        assert time.monotonic() - begin < 5
    assert report.fault().startswith("node n2 ended by signal 9:\n")
    assert [stats["node"] for stats in report.stats] == ["n1", "n3"]
    assert len(report.phases) == 1 and report.total().requests > 100 and report.servers["s1"] > 100
    assert json.loads(json.dumps(report.as_json()))["fault"] == report.fault()
    assert "n3         100" in report.text()


def test_what_breaks_one_phase_leaves_the_others(served, monkeypatch):
    calls = []

    def run(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise LabError("`ss` failed")
        arguments[-1].requests = 10

    monkeypatch.setattr(load, "run", run)
    with Cluster(served, STANDIN) as nodes:
        report = demo.observe(served, nodes, 4)
    assert [phase.result.requests for phase in report.phases] == [10, 0, 10, 10]
    assert report.fault() == "1 of 30 requests failed: 1 × `ss` failed"


def test_a_server_that_is_gone_fails_the_demonstration(lab):
    # Nothing answers here: the route points to a node, and a node is nothing but a namespace.
    vip = plan.VIPS["pair"]
    lab.route(vip, node=1)
    result = load.run(lab.client, [vip.url(4)], 1, 2, True)
    report = good_report()
    report.phases.append(demo.Phase("three", result))
    assert "requests failed: " in report.fault()


def test_a_node_that_ends_is_an_error_with_its_last_words(lab, monkeypatch):
    monkeypatch.setenv("STANDIN_FAILS", "1")
    with pytest.raises(LabError, match=r"(?s)node n(\d) ended with code 1:.*node-n\1.toml:1: it does not want to"):
        Cluster(lab, STANDIN).__enter__()


def test_directories_that_dpdk_leaves_are_removed(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "RUNTIME", tmp_path)
    for name in ("steerage-n1", "steerage-n2", "steerage-n4", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "steerage-n2" / "config").touch()
    with Cluster(lab, STANDIN):
        pass
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other", "steerage-n2", "steerage-n4"]


def test_hugepages_are_added_and_given_back(tmp_path):
    total, free = tmp_path / "nr_hugepages", tmp_path / "free_hugepages"
    total.write_text("10")
    free.write_text("4")
    with hugepages.reserved(6, tmp_path) as enough:
        # A file does not count for itself, so these aren't there.
        assert not enough and total.read_text() == "12"
    assert total.read_text() == "10"
    with hugepages.reserved(4, tmp_path) as enough:
        assert enough and total.read_text() == "10"
    with hugepages.reserved(4, tmp_path / "none") as enough:
        assert not enough


def test_the_command_line_is_checked(capsys, tmp_path):
    assert demo.options([]).seconds == 20
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("{}")
    assert demo.options(["--json", str(old), "--keep"]).keep and old.read_text() == "{}"
    assert demo.options(["--json", str(new)]).json == new and not new.exists()
    for wrong, said in (
        (["--seconds", "3"], "--seconds must be at least 4"),
        (["--json", "/none/x.json"], "--json: /none/x.json can't be written: No such file"),
        (["--json", str(tmp_path)], f"--json: {tmp_path} can't be written: Is a directory"),
    ):
        with pytest.raises(SystemExit):
            demo.options(wrong)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_cleans_up(number):
    script = f"""if True:
        import sys
        sys.path.insert(0, {str(HERE.parents[1] / "scripts")!r})
        from pathlib import Path
        from lab import Interrupted, build, demo
        build.product = lambda: Path({str(STANDIN)!r})
        try:
            demo.main([])
        except Interrupted as interrupted:
            sys.exit(interrupted.code)
    """
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    while "kept connections" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.5)
    assert any(name.startswith(f"stg{process.pid}-") for name in names())
    process.send_signal(number)
    assert process.wait(15) == 128 + number
    assert not any(name.startswith(f"stg{process.pid}-") for name in names())
    assert not Path(f"/run/steerage-lab/{process.pid}").exists()

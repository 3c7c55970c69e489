"""The benchmark's arithmetic, its reading of the load generator's reports, and its runs."""

import json
import shutil
import sys

import pytest

from tests.bench import cli, probes, runner
from tests.bench.load import Load, check, parse
from tests.bench.processes import RunFailed, ServerProcess
from tests.bench.results import Failure, Sample, ScenarioResults, Spread, Target
from tests.bench.runs import DETAILS, Context, Scenario, sample_of
from tests.bench.scenarios import SCENARIOS
from tests.bench.servers import SERVERS, Server, find_server
from tests.bench.tools import Tools, compile_c
from tests.ports import free_port


def results_of(better="higher", **figures):
    """Results of the servers named, with one figure, or None for a failed run, in each round."""
    results = ScenarioResults("s", "some scenario", "messages/s", better)
    for server, values in figures.items():
        for number, value in enumerate(values):
            results.add(number, server, Failure("it broke") if value is None else Sample(value))
    return results


class TestResults:
    def test_median_and_extremes(self):
        assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
        assert Spread.of([4, 1]) == Spread(2.5, 1, 4)
        assert Spread.of([]) is None

    def test_ratios_are_those_of_each_round(self):
        # The machine is twice as fast in the second round: each ratio is 2, and the ratio of the medians would be too;
        # in the third one, it gets faster between the two runs.
        results = results_of(ours=[200, 400, 600], peer=[100, 200, 400])
        assert results.ratio("ours", "peer") == Spread(2, 1.5, 2)

    def test_a_failed_run_is_not_a_zero(self):
        results = results_of(ours=[100, None, 120], peer=[50, 50, None])
        assert results.spread("ours") == Spread(110, 100, 120)
        assert results.ratio("ours", "peer") == Spread(2, 2, 2)
        assert results.failures("ours") == [Failure("it broke")]

    def test_only_failures_make_no_figure(self):
        results = results_of(ours=[None, None], peer=[1, 2])
        assert results.spread("ours") is None
        assert results.ratio("ours", "peer") is None

    @pytest.mark.parametrize(
        ("sign", "met"), [(">=", True), ("<=", True), (">", False), ("<", False)], ids=["ge", "le", "gt", "lt"]
    )
    def test_targets_at_their_bound(self, sign, met):
        results = results_of(ours=[20], peer=[10])
        results.targets = (Target("ours", sign, 2, "peer"), Target("ours", sign, 20), Target("ours", sign, 2, "other"))
        assert [verdict.is_met for verdict in results.verdicts()] == [met, met, None]

    def test_a_target_says_what_it_is(self):
        assert str(Target("wsthreads", ">=", 8, "flask-sock")) == "wsthreads ≥ 8 × flask-sock"
        assert str(Target("wsthreads", "<=", 0.15)) == "wsthreads ≤ 0.15"
        assert str(Target("wsthreads", "<", 1, "bun")) == "wsthreads ahead of bun"
        with pytest.raises(ValueError, match="'='"):
            Target("wsthreads", "=", 1)

    def test_json_keeps_every_run(self):
        results = results_of(ours=[10, None], peer=[5, 5])
        results.subjects = ("ours",)
        results.targets = (Target("ours", ">=", 2, "peer"),)
        document = json.loads(json.dumps(results.as_json()))
        assert document["servers"]["ours"]["runs"] == [{"value": 10}, {"failure": "it broke"}]
        assert document["servers"]["peer"]["ratio_of"]["ours"]["median"] == 2
        assert document["targets"][0]["met"] is True


REPORT = {"ok": 10, "errors": 0, "sent": 100, "received": 100, "cycles": 0, "seconds": 1}


class TestLoad:
    def test_reads_wsloads_line(self):
        assert parse('{"mode":"echo","ok":10,"recv_per_s":12.5}\n') == {"ok": 10, "recv_per_s": 12.5}

    def test_no_report_is_what_it_complained_about(self):
        with pytest.raises(RunFailed, match="connect: Connection refused"):
            parse("", "wsload: connect: Connection refused\n")
        with pytest.raises(RunFailed, match="reported nothing"):
            parse("")

    def test_a_good_report_passes(self):
        check(Load(connections=10), REPORT)
        check(Load(mode="fan", connections=10), {**REPORT, "received": 1000})
        check(Load(mode="idle", connections=10), {**REPORT, "received": 0})

    def test_the_cpu_time_of_a_message_is_that_of_the_server_while_it_measures(self):
        figures = {**dict.fromkeys(DETAILS, 0.5), "conns": 10, "cycles": 0, "seconds": 2.0, "received": 10_000}
        assert sample_of(1, figures).details["server_us"] == 100
        for change in {"received": 0}, {"seconds": 0.1}:
            assert "server_us" not in sample_of(1, {**figures, **change}).details

    @pytest.mark.parametrize(
        ("load", "change", "reason"),
        [
            (Load(connections=10), {"ok": 9}, "only 9 of 10 connections could be opened"),
            (Load(connections=10), {"errors": 2}, "2 of 10 connections were lost"),
            (Load(mode="idle", connections=10), {"errors": 2}, "2 of 10 connections were lost"),
            (Load(connections=10), {"received": 0}, "not one message came back"),
            (Load(mode="fan", connections=10), {"received": 500}, "only 50% of the messages"),
            (Load(mode="fan", connections=10, rate_per_s=200), {"received": 1000}, "only 50% of the messages"),
            (Load(mode="churn", connections=10), {}, "not one connection was closed"),
        ],
    )
    def test_a_report_that_means_nothing_is_a_failure(self, load, change, reason):
        with pytest.raises(RunFailed, match=reason):
            check(load, {**REPORT, **change})


class TestRunner:
    def run(self, tmp_path, measure, servers=("wsthreads", "bun", "ws"), rounds=3, **missing):
        scenario = Scenario(name="s", title="s", unit="u", measure=measure, servers=servers)
        part = runner.Part(scenario, [find_server(name) for name in servers], rounds)
        context = Context(Tools(tmp_path, missing=missing), seconds=1, quick=True)
        return runner.run_part(part, context, lambda number, server, outcome: None)

    def test_rounds_interleave_the_servers_and_begin_with_another_each_time(self, tmp_path):
        order = []
        self.run(tmp_path, lambda context, server: order.append(server.name) or Sample(1))
        assert order == ["wsthreads", "bun", "ws", "bun", "ws", "wsthreads", "ws", "wsthreads", "bun"]

    def test_a_run_that_fails_stops_nothing(self, tmp_path):
        def measure(context, server):
            if server.name == "bun":
                raise RunFailed("it broke")
            return Sample(1)

        results = self.run(tmp_path, measure)
        assert len(results.samples("ws")) == 3
        assert results.failures("bun") == [Failure("it broke")] * 3

    def test_what_is_missing_is_skipped(self, tmp_path):
        results = self.run(tmp_path, lambda context, server: Sample(1), bun="there is no npm")
        assert results.servers == ["wsthreads", "ws"]
        assert results.skipped == {"bun": "bun: there is no npm"}

    def test_without_the_c_module_the_targets_of_pure_python_are_those_of_what_there_is(self, tmp_path):
        part = runner.choose(["echo-100"], [], 1)[0]
        results = runner.new_results(part, Tools(tmp_path, missing={"speedups": "not built"}))
        assert "wsthreads-pure" in results.skipped
        assert {target.subject for target in results.targets} == {"wsthreads"}

    def test_patterns_choose_scenarios_and_servers(self):
        parts = runner.choose(["fan-100-*"], ["wsthreads", "websockets*", "flask-sock-gunicorn"], 2)
        assert [part.scenario.name for part in parts] == ["fan-100-1", "fan-100-4"]
        names = [server.name for server in parts[1].servers]
        assert names == ["wsthreads", "websockets", "websockets@1", "flask-sock-gunicorn"]

    def test_another_checkout_is_a_server_beside_each_of_ours(self, tmp_path):
        with pytest.raises(runner.SelectionError, match="has no wsthreads with its C modules"):
            runner.choose(["echo-100"], ["wsthreads"], 1, tmp_path)
        (tmp_path / "wsthreads").mkdir()
        (tmp_path / "wsthreads" / "_speedups.abi3.so").touch()
        (part,) = runner.choose(["echo-100"], ["wsthreads", "ws"], 1, tmp_path)
        assert [server.name for server in part.servers] == ["wsthreads", "ws", "wsthreads-before"]
        assert part.servers[-1].env["PYTHONPATH"] == str(tmp_path)
        results = runner.new_results(part, Tools(tmp_path))
        assert Target("wsthreads", ">=", 0.97, "wsthreads-before") in results.targets
        (part,) = runner.choose(["request"], ["wsthreads"], 1, tmp_path)  # a latency
        (target,) = [
            target for target in runner.new_results(part, Tools(tmp_path)).targets if target.of == "wsthreads-before"
        ]
        assert (target.sign, target.bound) == ("<=", pytest.approx(1 / 0.97))

    def test_soaks_are_run_only_by_name(self):
        assert not any(part.scenario.only_by_name for part in runner.choose([], [], 1))
        assert runner.choose(["soak-messages"], [], 5)[0].rounds == 1

    @pytest.mark.parametrize(("scenarios", "servers"), [(["nope"], []), ([], ["nope"]), ([], ["nope*"])])
    def test_what_there_is_not_is_an_error(self, scenarios, servers):
        with pytest.raises(runner.SelectionError, match="nope"):
            runner.choose(scenarios, servers, 1)

    def test_the_catalogue_is_consistent(self):
        for scenario in SCENARIOS.values():
            names = set(scenario.servers)
            assert set(scenario.subjects) & set(scenario.servers)
            assert all(find_server(name).name == name for name in names)
            assert all({target.subject, target.of or target.subject} <= names for target in scenario.targets)
            assert scenario.better in ("higher", "lower")

    def test_a_name_can_ask_for_one_core(self):
        assert find_server("bun@1").one_core
        assert find_server("bun@1").command is SERVERS["bun"].command
        with pytest.raises(KeyError, match="there is no server 'bum'"):
            find_server("bum")


class TestCommand:
    def test_make_passes_options_through_the_environment(self, monkeypatch):
        for name, value in {"ROUNDS": "5", "SECONDS": "0.5", "ONLY": "echo-100,fan-*", "SERVERS": "bun ws"}.items():
            monkeypatch.setenv(name, value)
        options = cli._parse([])
        assert (options.rounds, options.seconds) == (5, 0.5)
        assert options.scenario == ["echo-100", "fan-*"]
        assert options.server == ["bun", "ws"]

    def test_lists_what_there_is(self, capsys):
        assert cli.main(["--list"]) == 0
        listed = capsys.readouterr().out
        assert all(name in listed for name in (*SCENARIOS, *SERVERS))

    @pytest.mark.parametrize("part", [["-s", "echo-100"], ["--server", "bun"], ["--before", "."]], ids=str)
    def test_a_part_is_not_published(self, part, capsys):
        assert cli.main(["--publish", *part]) == 2
        assert capsys.readouterr().err == "bench: only a run of all rows and servers is published\n"

    def test_a_wrong_name_is_one_line(self, capsys):
        assert cli.main(["--scenario", "nope"]) == 2
        assert capsys.readouterr().err.startswith("bench: there is no scenario 'nope'; there are: echo-10")


class TestServerProcess:
    def serve(self, code, tmp_path):
        port = free_port()
        return ServerProcess([sys.executable, "-c", code, str(port)], port, tmp_path / "log")

    def test_a_server_that_ends_says_why(self, tmp_path):
        server = self.serve("raise SystemExit('no luck')", tmp_path)
        with pytest.raises(RunFailed, match="ended with status 1: no luck"), server:
            pass

    def test_a_server_that_will_not_end_is_ended(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tests.bench.processes.STOP_TIMEOUT_S", 0.2)
        code = (
            "import signal, socket, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\nwhile True: s.accept()"
        )
        with self.serve(code, tmp_path) as server:
            assert server.start_s > 0
            usage = server.usage()
            assert usage.threads == 1
            assert usage.files >= 4
            assert usage.rss_mib > 1
        with pytest.raises(RunFailed, match="ended with status -9"):
            server.check_alive()

    def test_a_program_that_is_not_there_is_a_failed_run(self, tmp_path):
        server = ServerProcess(["/nowhere/node"], free_port(), tmp_path / "log")
        with pytest.raises(RunFailed, match="cannot start /nowhere/node: No such file"), server:
            pass


def test_the_gain_without_a_gil_is_the_ratio_of_what_the_program_prints(tmp_path):
    def program(code):
        return Server(name="s", label="s", command=lambda tools, endpoint, port: [sys.executable, "-c", code])

    context = Context(Tools(tmp_path), seconds=1, quick=True)
    sample = probes.gain_without_gil(context, program("print([20, 30])"))
    assert sample == Sample(1.5, {"with_gil_per_s": 20, "without_gil_per_s": 30})
    with pytest.raises(RunFailed, match="no such interpreter"):
        probes.gain_without_gil(context, program("raise SystemExit('no such interpreter')"))


def test_a_compiler_error_is_one_line(tmp_path):
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("needs a C compiler")
    source = tmp_path / "broken.c"
    source.write_text("#include <no/such/header.h>\n")
    complaint = compile_c(source, tmp_path / "broken")
    assert "no/such/header.h" in complaint
    assert "\n" not in complaint

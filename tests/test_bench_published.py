"""What the benchmark prints and publishes: its tables, the charts, and the page with the results."""

import json
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

from tests.bench import cli, growth, report
from tests.bench.chart import draw
from tests.bench.page import page
from tests.bench.results import Sample, Target
from tests.test_bench import results_of


class TestReport:
    def test_figures_have_the_digits_that_mean_something(self):
        assert [report.figure(value) for value in (35512.4, 40.26, 0.8123, 0)] == ["35,512", "40.3", "0.812", "0"]

    def test_the_best_comes_first(self):
        higher = report.table(results_of(slow=[1], fast=[2])).splitlines()
        lower = report.table(results_of(better="lower", slow=[2], fast=[1])).splitlines()
        for lines in (higher, lower):
            assert [line.split()[0] for line in lines if line.split()[0] in ("slow", "fast")] == ["fast", "slow"]

    def test_failed_and_skipped_servers_are_named_with_the_reason(self):
        results = results_of(ours=[10, None], broken=[None, None])
        results.skipped = {"bun": "bun: there is no npm"}
        text = report.table(results)
        assert "ours: 1 of 2 runs failed: it broke" in text
        assert "broken: 2 of 2 runs failed: it broke" in text
        assert "bun: skipped; bun: there is no npm" in text

    def test_a_busy_load_generator_is_pointed_out(self):
        results = results_of(ours=[10])
        assert "load generator" not in report.table(results)
        results.add(0, "ours", Sample(10, {"client_cpu": 0.99}))
        assert "the load generator used" in report.table(results)

    def test_a_busy_machine_is_pointed_out(self):
        results = results_of(ours=[10])
        results.add(0, "ours", Sample(10, {"other_cpu": 0.75}))
        assert "other programs used up to 75% of a core" in report.table(results)

    def test_missed_targets_are_summed_up(self):
        results = results_of(ours=[10], peer=[10])
        results.targets = (Target("ours", ">=", 2, "peer"), Target("ours", ">=", 1, "peer"))
        text = report.summary([results])
        assert "1 met, 1 missed, 0 not measured; 0 runs failed" in text
        assert "s: ours ≥ 2 × peer: 1" in text


def document(**scenarios):
    machine = {"commit": "abc", "cores": 2, "processor": "A & B", "kernel": "Linux", "versions": {"python": "3.12"}}
    options = {"rounds": 2, "seconds": 1.0}
    return {"date": "2026-01-02T03:04", "environment": machine, "options": options, "scenarios": scenarios}


class TestChart:
    def test_is_well_formed_and_has_a_bar_for_each_server_measured(self):
        results = results_of(wsthreads=[10, 12], bun=[5, 6], ws=[None, None])
        root = ElementTree.fromstring(draw(document(**{"echo-100": results.as_json()})))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        bars = root.findall("{http://www.w3.org/2000/svg}rect")
        assert [bar.get("class") for bar in bars] == ["ours", "bar"]
        assert float(bars[0].get("width")) > float(bars[1].get("width")) > 0
        texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "Bun" in texts
        assert "11.0" in texts
        assert any("A & B" in text for text in texts)

    def test_is_well_formed_without_results(self):
        ElementTree.fromstring(draw(document()))
        ElementTree.fromstring(draw(document(s=results_of(ours=[None]).as_json())))


def echo_rows(servers, **rates):
    """Rows named ``echo-N``, with the rates of each server in each round."""
    return {
        f"echo-{row.removeprefix('of_')}": results_of(**dict(zip(servers, figures, strict=True))).as_json()
        for row, figures in rates.items()
    }


class TestGrowth:
    def test_has_a_line_for_each_server_from_few_connections_to_many(self):
        rows = echo_rows(["wsthreads", "ws"], of_1000=([40], [50]), of_10=([100], [60]), of_100=([80, 90], [None]))
        svg = ElementTree.fromstring(growth.draw(document(**rows)))
        name = "{http://www.w3.org/2000/svg}"
        ours, theirs = (
            [tuple(map(float, point.split(","))) for point in line.get("points").split()]
            for line in svg.findall(f"{name}polyline")
            if "thin" not in line.get("class")
        )
        assert [x for x, _ in ours] == sorted(x for x, _ in ours)
        assert len(ours) == 3
        assert ours[0][1] < ours[1][1] < ours[2][1]  # the rate falls, and y counts from the top
        assert len(theirs) == 2  # the row that failed is left out
        texts = {text.text for text in svg.iter(f"{name}text")}
        assert {"10", "100", "1,000", "wsthreads", "ws on Node"} <= texts

    def test_names_of_lines_that_end_at_the_same_place_do_not_overlap(self):
        servers = ["wsthreads", "ws", "aiohttp"]
        rows = echo_rows(servers, of_10=([9], [9], [9]), of_100=([9], [9], [9]), of_1000=([9], [9.01], [9.02]))
        svg = ElementTree.fromstring(growth.draw(document(**rows)))
        heights = sorted(
            float(text.get("y"))
            for text in svg.iter("{http://www.w3.org/2000/svg}text")
            if (text.get("class") or "").startswith("line-")
        )
        assert len(heights) == 3
        assert all(below - above >= growth.TEXT_HEIGHT for above, below in pairwise(heights))

    def test_two_points_make_no_chart(self, tmp_path):
        rows = echo_rows(["wsthreads"], of_10=([9],), of_100=([8],), of_1000=([7],))
        for count, files in ((3, {"chart.svg", "growth.svg", "table.rst"}), (2, {"chart.svg", "table.rst"})):
            (folder := tmp_path / str(count)).mkdir()
            (folder / "latest.json").write_text(json.dumps(document(**dict(list(rows.items())[:count]))))
            assert cli.main(["--chart-from", f"{folder}/latest.json", "--chart", f"{folder}/new/chart.svg"]) == 0
            assert {file.name for file in (folder / "new").iterdir()} == files
            assert ("growth.svg" in (folder / "new/table.rst").read_text()) is (count == 3)


class TestPage:
    def test_shows_the_better_of_one_core_and_all(self):
        results = results_of(wsthreads=[30, 10], **{"flask-sock": [1.5], "flask-sock@1": [2.5]})
        text = page(document(**{"echo-100": results.as_json()}))
        assert text.split()[-9:] == ["*", "-", "some", "scenario,", "messages/s", "-", "20.0", "-", "2.5"]

    def test_names_what_was_missed_and_what_did_not_run(self):
        results = results_of(wsthreads=[9, 10], bun=[10, 10])
        results.targets = (Target("wsthreads", ">=", 1, "bun"), Target("wsthreads", ">=", 0.5, "bun"))
        results.skipped = {"ws": "ws: there is no npm"}
        text = page(document(s=results.as_json()))
        assert "- some scenario: wsthreads ≥ 1 × bun. Measured: 0.95 (0.9 to 1)" in text
        assert "0.5" not in text
        assert "- ws: ws: there is no npm" in text

    def test_a_row_without_peers_is_in_the_list(self):
        text = page(document(s=results_of(**{"wsthreads-resume": [9], "wsthreads": [10]}).as_json()))
        assert "- some scenario, messages/s: wsthreads-resume 9, wsthreads 10.0" in text

    def test_the_published_table_is_that_of_the_published_results(self):
        published = json.loads((cli.PUBLISHED / "latest.json").read_text())
        assert (cli.PUBLISHED / "table.rst").read_text() == page(published)
        assert (cli.PUBLISHED / "chart.svg").read_text() == draw(published)

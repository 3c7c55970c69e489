"""Results as text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.results import Failure, Outcome, ScenarioResults, Spread

__all__ = ["describe_environment", "describe_outcome", "figure", "summary", "table"]

#: At this share of a core, the single-threaded load generator may be the limit.
CLIENT_BUSY = 0.9

#: If other programs used more than this share of a core, the table warns.
OTHERS_BUSY = 0.2

#: Columns beside the figure and its ratios: heading, name in the details, its factor. µs/message is the CPU time of the
#: server for each message that arrives.
DETAILS = (
    ("p50 µs", "p50_us", 1),
    ("p99 µs", "p99_us", 1),
    ("server CPU", "server_cpu", 100),
    ("µs/message", "server_us", 1),
    ("client CPU", "client_cpu", 100),
    ("RSS MiB", "rss_mib", 1),
    ("KiB/conn.", "kib_per_connection", 1),
    ("with GIL/s", "with_gil_per_s", 1),
    ("without/s", "without_gil_per_s", 1),
)


def figure(value: float) -> str:
    """A figure with its significant digits: 35,512; 40.3; 0.812."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    middle, low, high = figure(spread.median), figure(spread.low), figure(spread.high)
    return middle if low == high else f"{middle} ({low}..{high})"


def describe_outcome(outcome: Outcome, unit: str) -> str:
    """One run as a line."""
    return f"failed: {outcome.reason}" if isinstance(outcome, Failure) else f"{figure(outcome.value)} {unit}"


def describe_environment(environment: Mapping[str, object]) -> str:
    """The machine and the versions, in three lines."""
    versions = environment["versions"]
    assert isinstance(versions, dict)
    module = "with the C module" if environment["speedups"] else "without a C module"
    return "\n".join(
        (
            f"{environment['cores']} cores ({environment['processor']}), {environment['kernel']}, "
            f"load average {environment['load_average']:.2f}",
            f"wsthreads at {environment['commit']}, {module}",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
        )
    )


def table(results: ScenarioResults) -> str:
    """A scenario: a row for each server, then failures, skipped servers and targets."""
    ordered = sorted(
        (server for server in results.servers if results.samples(server)),
        key=lambda server: results.spread(server).median,  # type: ignore[union-attr]
        reverse=results.better == "higher",
    )
    rounds = len(results.rounds)
    lines = [
        f"{results.name}: {results.title}",
        f"  {results.unit}, {results.better} is better; median (lowest..highest) of "
        f"{rounds} round{'' if rounds == 1 else 's'}",
    ]
    details = [column for column in DETAILS if any(results.detail(server, column[1]) for server in ordered)]
    ratios = [subject for subject in results.subjects if results.samples(subject)] if len(ordered) > 1 else []
    rows = [["", results.unit, *(f"{subject} is" for subject in ratios), *(heading for heading, _, _ in details)]]
    client_busy = False
    for server in ordered:
        row = [server, _spread(results.spread(server))]
        client = results.detail(server, "client_cpu")
        if client and client.median >= CLIENT_BUSY:
            row[1] += " *"
            client_busy = True
        for subject in ratios:
            ratio = results.ratio(subject, server) if subject != server else None
            row.append(f"{_spread(ratio)} ×" if ratio else "")
        for _, name, factor in details:
            detail = results.detail(server, name)
            row.append("" if detail is None else figure(detail.median * factor) + ("%" if factor == 100 else ""))
        rows.append(row)
    if ordered:
        lines += _aligned(rows)
    if client_busy:
        lines.append(f"  * the load generator used {CLIENT_BUSY:.0%} of a core: the server may be able to do more")
    others = [spread.high for server in ordered if (spread := results.detail(server, "other_cpu"))]
    if others and max(others) >= OTHERS_BUSY:
        lines.append(f"  warning: other programs used up to {max(others):.0%} of a core meanwhile")
    for server in results.servers:
        failures = results.failures(server)
        reasons = "; ".join(dict.fromkeys(failure.reason for failure in failures))
        if failures:
            lines.append(f"  {server}: {len(failures)} of {len(results.rounds)} runs failed: {reasons}")
    lines += [f"  {server}: skipped; {why}" for server, why in results.skipped.items()]
    lines += _targets(results)
    return "\n".join(lines)


def _targets(results: ScenarioResults) -> list[str]:
    words = {True: "met", False: "MISSED", None: "not measured"}
    rows = [[words[v.is_met], str(v.target), _spread(v.spread)] for v in results.verdicts()]
    return ["  targets:", *(f"  {line}" for line in _aligned(rows, left=(0, 1)))] if rows else []


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        (
            "  "
            + "  ".join(
                text.ljust(width) if column in left else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]


def summary(all_results: Sequence[ScenarioResults]) -> str:
    """The number of met targets, and a list of the missed ones."""
    verdicts = [(results.name, verdict) for results in all_results for verdict in results.verdicts()]
    count = {met: sum(verdict.is_met is met for _, verdict in verdicts) for met in (True, False, None)}
    failed = sum(len(results.failures(server)) for results in all_results for server in results.servers)
    lines = [
        f"targets: {count[True]} met, {count[False]} missed, {count[None]} not measured; "
        f"{failed} run{'' if failed == 1 else 's'} failed"
    ]
    lines += [
        f"  {name}: {verdict.target}: {_spread(verdict.spread)}"
        for name, verdict in verdicts
        if verdict.is_met is False
    ]
    return "\n".join(lines)

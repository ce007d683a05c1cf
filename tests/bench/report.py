# SPDX-License-Identifier: Apache-2.0
"""What a run found, as tables for a person and as JSON for a program."""

from __future__ import annotations

import platform
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc
from rich.table import Table

from tests.bench.processes import CORES, MEASURED_CORE, OTHER_CORES
from tests.bench.run import ONE_TOKEN, OURS, PACED_1, PACED_32, PACED_128, PEER, UNPACED_32
from tests.bench.statistics import percentile, ratio_of_medians

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.choice import Choice
    from tests.bench.failover import Failover
    from tests.bench.memory import Wave
    from tests.bench.run import Results
    from tests.bench.statistics import Ratio
    from tests.bench.workloads import Cost

ORDER = (PACED_1, PACED_32, PACED_128, UNPACED_32, ONE_TOKEN)
REACH = {PACED_128: 4.5, UNPACED_32: 2.0, ONE_TOKEN: 5.0}
"""Times the router's cost, at most."""
REACH_FIRST_TOKEN_MS = 2.0
REACH_CHOICE_US = 20.0
REACH_FAILOVER_MS = 50.0
REACH_CANCEL_MS = 250.0
NOISY = 0.10
MB = 1024 * 1024


def tables(results: Results) -> Iterator[Table]:
    """One for each kind of figure."""
    yield _costs(results)
    yield _first_tokens(results)
    yield _memory(results.waves)
    yield _choices(results.choices)
    if results.failover is not None:
        yield _failover(results.failover)
    yield _cancels(results.cancels)


def remarks(results: Results) -> Iterator[str]:
    """What a reader should know of the conditions."""
    return conditions(results.foreign, results.waves)


def conditions(foreign: float, waves: Sequence[Wave]) -> Iterator[str]:
    """Where it ran and what disturbed it: the share of the machine that others used, streams that were not together."""
    if len(CORES) > 1:
        yield f"Measured servers on core {MEASURED_CORE[0]}, simulator and load generator on {OTHER_CORES}."
    else:
        yield "One core for everything: the figures are of little use."
    yield f"Other programs used {foreign:.0%} of the machine meanwhile."
    if foreign > NOISY:
        yield "That is noisy: believe the ratios rather than the microseconds, and run it again."
    if any(wave.together < wave.streams for wave in waves):
        yield "Not all streams were open together: the machine was too slow, and the memory per stream says little."


def as_json(results: Results) -> dict[str, Any]:
    """The same, and every sample."""
    return {
        "machine": machine(results.foreign),
        "cpu_us": {
            workload: {
                server: {
                    "median": median(_micros(costs)),
                    "samples": _micros(costs),
                    "per_answer": median(cost.cpu_per_answer for cost in costs) * 1e6,
                    "tokens_of_an_answer": costs[0].answer,
                    "merged": median(cost.merged for cost in costs),
                }
                for server, costs in servers.items()
            }
            for workload, servers in results.costs.items()
        },
        "ratios": {workload: asdict(ratio) for workload, ratio in ratios(results).items()},
        "first_token_ms": {
            server: {f"{kind}_p{percent}": _ms(times, percent) for kind, times in kinds for percent in (50, 99)}
            | {f"added_p{percent}": _added(kinds, percent) for percent in (50, 99)}
            for server, kinds in ((name, _kinds(both)) for name, both in results.first_tokens.items())
        },
        "memory": [asdict(wave) | {"per_stream": wave.per_stream} for wave in results.waves],
        "choice": [asdict(choice) for choice in results.choices],
        "failover_s": asdict(results.failover) if results.failover else None,
        "cancel_s": results.cancels,
    }


def machine(foreign: float) -> dict[str, Any]:
    """What was measured on."""
    versions = {"python": platform.python_version(), "grpcio": grpc.__version__, "kernel": platform.release()}
    return versions | {"cores": len(CORES), "foreign_cpu": foreign}


def ratios(results: Results) -> dict[str, Ratio]:
    """Ours over the router's, where both were measured."""
    return {
        workload: ratio_of_medians(_micros(servers[OURS]), _micros(servers[PEER]))
        for workload, servers in results.costs.items()
        if PEER in servers
    }


def _costs(results: Results) -> Table:
    found = ratios(results)
    table = Table(
        title="CPU of the server process, in µs per unit: median (range), ratio of medians", title_justify="left"
    )
    table.add_column("unit", no_wrap=True)
    for column in (
        OURS,
        "merged",
        "busy",
        "per whole answer",
        *((PEER, "ratio [95 %]", "reach") if found else ()),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for workload in ORDER:
        servers = results.costs[workload]
        ours = servers[OURS]
        row = [workload, spread(_micros(ours)), f"{median(cost.merged for cost in ours):.1%}"]
        row.append(f"{median(cost.busy for cost in ours):.0%}")
        row.append(f"{median(cost.cpu_per_answer for cost in ours) * 1e6:.0f} of {ours[0].answer:5d}")
        if workload in found:
            ratio = found[workload]
            row += [spread(_micros(servers[PEER])), f"{ratio.value:.2f} [{ratio.low:.2f} – {ratio.high:.2f}]"]
            row.append(_verdict(ratio.value, REACH.get(workload)))
        table.add_row(*row)
    return table


def _first_tokens(results: Results) -> Table:
    table = Table(title="Time to the first token at 1 stream, in ms", title_justify="left")
    table.add_column("through")
    for column in ("p50", "p99", "direct p50", "direct p99", "added p50", "added p99", "reach"):
        table.add_column(column, justify="right", no_wrap=True)
    for server, both in results.first_tokens.items():
        kinds = _kinds(both)
        row = [f"{_ms(times, percent):.2f}" for _, times in kinds for percent in (50, 99)]
        row += [f"{_added(kinds, percent):.2f}" for percent in (50, 99)]
        table.add_row(server, *row, _verdict(_added(kinds, 50), REACH_FIRST_TOKEN_MS) if server == OURS else "")
    return table


def _memory(waves: Sequence[Wave]) -> Table:
    table = Table(title="Resident memory of the gateway, in MB", title_justify="left")
    for column in ("wave", "streams", "open together", "errors", "before", "few", "all", "after", "kB per stream"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, wave in enumerate(waves, 1):
        sizes = (f"{size / MB:.1f}" for size in (wave.before, wave.with_few, wave.with_all, wave.after))
        counts = (str(count) for count in (number, wave.streams, wave.together, wave.errors))
        table.add_row(*counts, *sizes, f"{wave.per_stream / 1024:.1f}")
    return table


def _choices(choices: Sequence[Choice]) -> Table:
    table = Table(title="CPU of choosing a backend, in µs: median (range)", title_justify="left")
    table.add_column("among", no_wrap=True)
    for column in ("cost", "reach"):
        table.add_column(column, justify="right", no_wrap=True)
    for choice in choices:
        table.add_row(choice.name, spread(choice.micros), _verdict(median(choice.micros), REACH_CHOICE_US))
    return table


def _failover(found: Failover) -> Table:
    table = Table(title="Time to the first token with a backend that refuses connections, in ms", title_justify="left")
    table.add_column("")
    for column in ("p50", "p99", "reach"):
        table.add_column(column, justify="right", no_wrap=True)
    kinds = (("refused", found.refused), ("alone", found.alone))
    table.add_row("good backend alone", *(f"{_ms(found.alone, percent):.2f}" for percent in (50, 99)), "")
    table.add_row("refusing backend first", *(f"{_ms(found.refused, percent):.2f}" for percent in (50, 99)), "")
    added = [_added(kinds, percent) for percent in (50, 99)]
    table.add_row("added", *(f"{ms:.2f}" for ms in added), _verdict(added[1], REACH_FAILOVER_MS))
    return table


def _cancels(seconds: Sequence[float]) -> Table:
    table = Table(title="From a caller's cancel until the backend sees it, in ms", title_justify="left")
    for column in ("cancels", "p50", "p99", "longest", "reach"):
        table.add_column(column, justify="right", no_wrap=True)
    times = [f"{_ms(seconds, percent):.1f}" for percent in (50, 99, 100)]
    table.add_row(str(len(seconds)), *times, _verdict(_ms(seconds, 99), REACH_CANCEL_MS))
    return table


def _kinds(both: tuple[list[float], list[float]]) -> tuple[tuple[str, list[float]], ...]:
    return (("through", both[0]), ("direct", both[1]))


def _added(kinds: Sequence[tuple[str, list[float]]], percent: float) -> float:
    """The difference of the percentiles."""
    return _ms(kinds[0][1], percent) - _ms(kinds[1][1], percent)


def _ms(times: Sequence[float], percent: float) -> float:
    return percentile(times, percent) * 1000


def _micros(costs: Sequence[Cost]) -> list[float]:
    return [cost.micros for cost in costs]


def spread(values: Sequence[float]) -> str:
    """The median and how far the samples lie apart."""
    return f"{median(values):.1f} ({min(values):.1f} – {max(values):.1f})"


def _verdict(value: float, reach: float | None) -> str:
    if reach is None:
        return ""
    return f"≤ {reach:g} {'reached' if value <= reach else 'missed'}"

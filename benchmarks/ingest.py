"""How fast requests come in, held against what the same machine does without them.

``python -m benchmarks.ingest`` takes a quarter of an hour and 3 GB of disk, with ``--quick`` two
minutes. It starts a private PostgreSQL and a private Valkey, both durable, and one API process with
the service's own command line; other processes ask. What is compared is measured in turns, so that
what else the machine does falls on both, and the ratio of each turn is what counts. The tables for
``docs/ingest.md`` go to standard output.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from benchmarks.ingest_app import VALIDATE
from benchmarks.ingest_bulk import copied, taken_in
from benchmarks.ingest_load import Load, Order
from benchmarks.ingest_service import Service, running
from embedded.server import HOST

CONNECTIONS = 16
SAMPLES = 10
# Of one line, which is as many as one may have.
TOGETHER = 10_000
POLLS_PER_SECOND = 20.0
SUBMIT = "/v1/deletion-requests"

Ask = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    turns: int
    seconds: float
    poll_seconds: float
    bulk_turns: int
    bulk_samples: int
    single_lines: int
    """Lines of one sample, in one stream."""


QUICK = Scale(5, 3, 10, 3, 100_000, 10_000)
FULL = Scale(15, 8, 60, 5, 1_000_000, 200_000)


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parts = {"single": _single, "poll": _poll, "bulk": _bulk}
    parser.add_argument("--only", choices=parts)
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    with running() as service:
        for name, part in parts.items():
            if arguments.only in (None, name):
                print(part(service, scale), flush=True)
    return 0


def _order(service: Service, method: str, path: str, seconds: float, **further: Any) -> Order:
    chosen = {"connections": CONNECTIONS, **further}
    return Order(service.port, service.key, method, path, seconds=seconds, **chosen)


def _single(service: Service, scale: Scale) -> str:
    validate, store, healthy = (
        partial(_order, service, method, path, scale.seconds, samples=samples)
        for method, path, samples in (
            ("POST", VALIDATE, SAMPLES),
            ("POST", SUBMIT, SAMPLES),
            ("GET", "/healthz", 0),
        )
    )
    with closing(Load()) as load:
        health = load.ask(healthy())
        # Until every statement was compiled, and each thread has its connection.
        warming = load.ask(store())
        before = service.count("deletion_requests")
        turns = [_turn(load, validate(), store()) for _ in range(scale.turns)]
    stored = service.count("deletion_requests") - before
    _require(turns, stored)
    validated = [first["rate"] for first, _ in turns]
    rates = [second["rate"] for _, second in turns]
    ratios = [rate / other for rate, other in zip(rates, validated, strict=True)]
    return _table(
        f"| {CONNECTIONS} connections, {SAMPLES} samples in a request | median | range |",
        _row("validated only, a second", validated, ",.0f"),
        _row("stored, a second", rates, ",.0f"),
        _row("**stored / validated**, turn by turn", ratios, ".2f"),
        _row("p50 until the 202, ms", [1e3 * second["p50"] for _, second in turns], ",.0f"),
        _row("p99 until the 202, ms", [1e3 * second["p99"] for _, second in turns], ",.0f"),
        note=f"{len(turns)} turns of {scale.seconds:g} s each. All {stored:,} answers of 202 were "
        f"rows afterwards. `/healthz` in the same way: {health['rate']:,.0f} a second; the first "
        f"{scale.seconds:g} s, with nothing warm: {warming['rate']:,.0f}.",
    )


def _turn(load: Load, *orders: Order) -> list[dict[str, Any]]:
    found = [load.ask(order) for order in orders]
    _say(
        ", ".join(
            f"{order.path} {one['rate']:.0f}" for order, one in zip(orders, found, strict=True)
        )
    )
    return found


def _require(turns: Sequence[Sequence[Mapping[str, Any]]], stored: int) -> None:
    statuses = [one["statuses"] for turn in turns for one in turn]
    if any(set(each) != {"202"} for each in statuses):
        raise RuntimeError(f"not all were accepted: {statuses}")
    accepted = sum(turn[1]["statuses"]["202"] for turn in turns)
    if stored != accepted:
        raise RuntimeError(f"{accepted} were answered 202, and {stored} are stored")


def _poll(service: Service, scale: Scale) -> str:
    headers = {"Authorization": f"Bearer {service.key}"}
    made = httpx2.post(
        f"http://{HOST}:{service.port}{SUBMIT}",
        json={"sample_ids": ["known-1"]},
        headers=headers,
        trust_env=False,
    )
    poll = _order(
        service,
        "GET",
        made.raise_for_status().headers["Location"],
        scale.poll_seconds,
        connections=4,
        per_second=POLLS_PER_SECOND,
    )
    with closing(Load()) as polling, closing(Load()) as submitting:
        most = submitting.ask(_order(service, "POST", SUBMIT, 3.0, samples=SAMPLES))["rate"]
        found = {"nothing else": polling.ask(poll)}
        for share in (0.5, 1.0):
            rate = share * most
            submitting.begin(
                _order(
                    service,
                    "POST",
                    SUBMIT,
                    scale.poll_seconds + 1,
                    samples=SAMPLES,
                    per_second=rate if share < 1 else None,
                )
            )
            alone = f"{rate:.0f} submissions a second"
            found[alone if share < 1 else "as many submissions as fit"] = polling.ask(poll)
            submitting.finish()
    if any(set(one["statuses"]) != {"200"} for one in found.values()):
        raise RuntimeError("not all polls were answered")
    return _table(
        "| a status poll beside | p50, ms | p99, ms |",
        *(
            f"| {name} | {1e3 * one['p50']:.0f} | {1e3 * one['p99']:.0f} |"
            for name, one in found.items()
        ),
        note=f"{POLLS_PER_SECOND:g} polls a second of one request, {scale.poll_seconds:g} s each.",
    )


def _bulk(service: Service, scale: Scale) -> str:
    lines = scale.bulk_samples // TOGETHER
    turns, peaks = [], []
    for _ in range(scale.bulk_turns):
        by_copy = copied(service, lines, TOGETHER)
        turns.append((by_copy, TOGETHER * taken_in(service, lines, TOGETHER)))
        peaks.append(service.peak_mebibytes())
        _say(f"copied {by_copy:.0f}, taken in {turns[-1][1]:.0f}, {peaks[-1]:.0f} MiB")
    single = taken_in(service, scale.single_lines, 1)
    return _table(
        "| bulk, a second | median | range |",
        _row("rows by COPY", [first for first, _ in turns], ",.0f"),
        _row(f"samples in lines of {TOGETHER:,}", [second for _, second in turns], ",.0f"),
        _row("**samples / rows**, turn by turn", [two / one for one, two in turns], ".2f"),
        _row("lines of one sample", [single], ",.0f"),
        note=f"{len(turns)} turns of {scale.bulk_samples:,} samples in one stream, and as many "
        f"rows in one COPY; one stream of {scale.single_lines:,} lines of one sample. The API "
        f"process had {peaks[0]:.0f} MiB at most after the first stream, {peaks[-1]:.0f} MiB after "
        f"the last of these turns, and {service.peak_mebibytes():.0f} MiB in the end.",
    )


def _table(heading: str, *rows: str, note: str) -> str:
    columns = heading.count("|") - 2
    return "\n".join([heading, "|---|" + "---:|" * columns, *rows, "", note, ""])


def _row(name: str, values: Sequence[float], style: str) -> str:
    spread = f"{min(values):{style}}–{max(values):{style}}"
    return f"| {name} | {statistics.median(values):{style}} | {spread} |"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

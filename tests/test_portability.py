"""Exports and imports: between the stores, of any size, stopped in the middle, and by the commands."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from memgraph_plugin.cli import app
from memgraph_plugin.errors import StoreError
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.store.sealing import AesGcmSealer, new_key
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.portability_contract import body, exported, filled
from memgraph_plugin.types import Insert

ANA = ("memories", "ana")


def store_of(dsn: str, schema: str = "memgraph_plugin", dimensions: int = 256) -> PostgresMemoryStore:
    return PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=dimensions), db_schema=schema)


async def test_it_goes_round_all_three_stores_unchanged(dsn: str) -> None:
    first = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    await filled(first)
    lines = await exported(first)
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as second:
        await second.aimport(first.aexport())
        assert body(await exported(second)) == body(lines)
        with store_of(dsn, "third") as third:
            await asyncio.to_thread(third.setup)
            assert (await third.aimport(second.aexport(vectors=True))).embedded == 0
            assert body(await exported(third)) == body(lines)
            last = InMemoryMemoryStore(embeddings=HashingEmbeddings())
            await asyncio.to_thread(last.import_, third.export())
    assert body(await exported(last)) == body(lines)


async def test_vectors_of_another_model_are_made_again(dsn: str) -> None:
    source = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    await filled(source)
    lines = await exported(source, vectors=True)
    with store_of(dsn, dimensions=64) as store:
        assert store.import_(lines).embedded == 4
        assert store.recall(("people", "ana"), "Faro")[0].cosine
    words = InMemoryMemoryStore()
    assert words.import_(lines).embedded == 0
    assert words.recall(("people", "ana"), "Faro")[0].cosine is None


def test_no_transaction_is_open_while_the_model_runs_or_the_lines_come(dsn: str) -> None:
    def open_transactions() -> int:
        with psycopg.connect(dsn, autocommit=True) as conn:
            found = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
            ).fetchone()
            assert found is not None
            return int(found[0])

    class Watched(HashingEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            assert open_transactions() == 0
            return super().embed_documents(texts)

    source = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    source.apply(ANA, [Insert(text=f"note {i}") for i in range(100)])

    def lines() -> Iterator[str]:
        for line in source.export():
            assert open_transactions() == 0
            yield line

    with PostgresMemoryStore(dsn, embeddings=Watched()) as store:
        assert store.count(()) == 0  # its connection is ready
        assert store.import_(lines()).embedded == 100


async def test_an_export_sees_one_moment_and_holds_nothing_once_it_is_left(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn, max_size=2) as store:
        await store.aapply(ANA, [Insert(key=f"{i:04}", text=f"note {i}") for i in range(2_000)])
        lines = store.aexport()
        seen = [await anext(lines)]
        await store.aapply(ANA, [Insert(key="x", text="later")])
        seen += [line async for line in lines]
        assert json.loads(seen[-1])["end"]["memories"] == 2_000
        for _ in range(4):
            left = store.aexport()
            await anext(left)
            await left.aclose()  # type: ignore[attr-defined]
        assert len(await store.arecall(ANA, "", k=5_000)) == 2_001


async def test_a_sealed_store_exports_plain_text_and_seals_what_it_imports(dsn: str) -> None:
    source = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    await filled(source)
    lines = await exported(source)
    sealer = AesGcmSealer.parse(new_key("2026"))
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), sealer=sealer) as store:
        await store.aimport(lines)
        assert body(await exported(store)) == body(lines)
        assert (await store.aimport(lines)).skipped == 17
    with psycopg.connect(dsn) as conn:
        said = conn.execute(
            "SELECT m::text || v::text || b::text FROM memgraph_plugin.memory m "
            "JOIN memgraph_plugin.memory_version v USING (namespace) "
            "JOIN memgraph_plugin.operation_batch b USING (namespace)"
        ).fetchall()
    assert said
    assert not [row for (row,) in said if "likes" in row or "Faro" in row or "small talk" in row]


def test_a_database_that_was_changed_by_hand_is_not_exported_in_part(dsn: str) -> None:
    with store_of(dsn) as store:
        store.apply(ANA, [Insert(key="k", text="likes tea")])
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("DELETE FROM memgraph_plugin.memory_version")
        with pytest.raises(StoreError, match="'k'"):
            list(store.export())


async def test_of_imports_at_once_one_does_it(dsn: str) -> None:
    source = InMemoryMemoryStore()
    await filled(source)
    lines = await exported(source)
    async with AsyncPostgresMemoryStore(dsn) as store:
        done = await asyncio.gather(*(store.aimport(iter(lines)) for _ in range(4)))
        assert sorted(each.memories for each in done) == [0, 0, 0, 5]
        assert body(await exported(store)) == body(lines)


def environment(dsn: str) -> dict[str, str]:
    return {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_EMBEDDINGS": "none"}


def call(dsn: str, *words: str) -> Result:
    return CliRunner().invoke(app, words, env=environment(dsn))


@pytest.mark.parametrize("name", ["ana.jsonl", "ana.jsonl.gz"])
def test_the_commands_write_a_file_and_take_it_back(dsn: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with PostgresMemoryStore(dsn) as store:
        store.apply(ANA, [Insert(text="likes tea")])
        store.apply(("memories", "bob"), [Insert(text="likes milk")])
    assert call(dsn, "export", "--user", "ana", "-o", str(path)).exit_code == 0
    assert path.stat().st_mode & 0o077 == 0, "only who wrote it may read it"
    assert [file.name for file in tmp_path.iterdir()] == [name]
    opened = gzip.open if name.endswith("gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        assert "milk" not in file.read()
    assert call(dsn, "forget", "--user", "ana", "--yes").exit_code == 0
    assert "1 memories in 1 versions of 1 batches" in call(dsn, "import", str(path)).stdout
    assert "2 entries were there already" in call(dsn, "import", str(path)).stdout
    assert "likes tea" in call(dsn, "search", "--user", "ana", "").stdout
    path.write_bytes(path.read_bytes()[:-30])
    broken = call(dsn, "import", str(path))
    assert broken.exit_code == 1
    assert "Nothing was imported" in broken.stderr
    assert call(dsn, "export").stdout.count("\n") == 6


def test_what_is_no_text_is_no_export(dsn: str, tmp_path: Path) -> None:
    for name, content in {"a.jsonl": b"\xff\xfe\x00", "b.gz": b"PK\x03\x04 zip", "c.jsonl": b""}.items():
        (tmp_path / name).write_bytes(content)
        result = call(dsn, "import", str(tmp_path / name))
        assert result.exit_code == 1, name
        assert "Nothing was imported" in result.stderr


def test_ctrl_c_leaves_no_half_import_and_no_half_file(dsn: str, tmp_path: Path) -> None:
    source = InMemoryMemoryStore()
    for i in range(4):
        source.apply(ANA, [Insert(key=f"{i}-{j}", text=f"note {j} of {i}") for j in range(5_000)])
    path = tmp_path / "ana.jsonl"
    path.write_text("".join(f"{line}\n" for line in source.export()))
    command = [sys.executable, "-m", "memgraph_plugin.cli"]
    env = {**os.environ, **environment(dsn)}
    with psycopg.connect(dsn, autocommit=True) as conn:
        run = subprocess.Popen([*command, "import", str(path)], env=env, stderr=subprocess.PIPE)
        writing = "SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname = current_database()"
        while not conn.execute(writing).fetchall():
            assert run.poll() is None, "it ended before it was stopped"
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
        assert run.returncode != 0
        assert conn.execute("SELECT count(*) FROM memgraph_plugin.operation_batch").fetchone() == (0,)
    with PostgresMemoryStore(dsn) as store:
        assert store.import_(path.read_text().splitlines()).memories == 20_000


def test_memory_does_not_grow_with_what_is_moved(dsn: str) -> None:
    """Ten times as many memories take less than a tenth more: they are streamed both ways."""
    code = """
import resource, sys
from memgraph_plugin.store.postgres import PostgresMemoryStore
dsn, name = sys.argv[1:]
with PostgresMemoryStore(dsn) as source, PostgresMemoryStore(dsn, db_schema=name) as target:
    target.setup()
    print(target.import_(source.export((name,))).memories)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    with PostgresMemoryStore(dsn) as store:
        for name, batches in {"small": 1, "large": 10}.items():
            for i in range(batches):
                store.apply((name,), [Insert(key=f"{i}-{j}", text="tea " * 50) for j in range(1_000)])
    peaks = []
    for name, memories in {"small": "1000", "large": "10000"}.items():
        done = subprocess.run(
            [sys.executable, "-c", code, dsn, name], capture_output=True, text=True, check=True
        )
        count, peak = done.stdout.split()
        assert count == memories
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] * 1.1

"""The queue in the database, and its workers: in order, again after a failure, and never twice."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import HumanMessage
from typer.testing import CliRunner

pytest.importorskip("procrastinate")

from procrastinate import utils
from procrastinate.jobs import Status

from memgraph_plugin import durable, working
from memgraph_plugin.cli import app as cli
from memgraph_plugin.doctor import examine
from memgraph_plugin.errors import ConfigurationError, ModelReplyError, StoreError
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.blocks import CoreBlock
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.safety import Safety
from memgraph_plugin.nodes.decide import DECIDING, Deciding
from memgraph_plugin.nodes.submit import Submission
from memgraph_plugin.settings import Settings
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.jobs import forget_jobs
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore

SCHEMA = "memgraph_plugin"
ANA = ("memories", "ana")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
DUE = "UPDATE procrastinate_jobs SET scheduled_at = now()"


def submission(turn: str = "turn:1", *, thread: str | None = "t", user: str = "ana") -> Submission:
    now = datetime.now(UTC)
    return Submission(namespace=("memories", user), thread=thread, session="s", now=now, turns=(turn,))


def jobs(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT lock, status::text, jsonb_array_length(args->'exchanges'), attempts "
            "FROM memgraph_plugin_queue.procrastinate_jobs ORDER BY id"
        ).fetchall()


def alter(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET search_path = memgraph_plugin_queue")
        for statement in statements:
            conn.execute(statement.encode())


def say(
    dsn: str, line: str, *, user: str = "ana", pause: float = 0.0, thread: str = "t", **options: Any
) -> None:
    with PostgresMemoryStore(dsn) as store, durable.QueueWriter(dsn, pause) as writer:
        graph = build_memory_graph(writer=writer, **options).compile(store=store)
        config: Any = {"configurable": {"thread_id": thread}}
        graph.invoke({"messages": [HumanMessage(line)]}, config, context=MemoryContext(user_id=user))


async def work(dsn: str, **options: Any) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        await working.work(dsn, SCHEMA, store, options.pop("policy", RulePolicy), **options)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


def registered(dsn: str, where: str = "true") -> bool:
    look = f"SELECT FROM memgraph_plugin_queue.procrastinate_workers WHERE {where}"
    with psycopg.connect(dsn) as conn:
        return bool(conn.execute(look.encode()).fetchall())


def raising(error: BaseException) -> Any:
    async def fails(*_: Any) -> Any:
        raise error

    return fails


def texts(dsn: str, *kinds: Any) -> list[str]:
    with PostgresMemoryStore(dsn) as store:
        hits = store.recall(ANA, "", k=100, kinds=kinds or ("semantic", "episodic"))
    return sorted(hit.memory.text for hit in hits)


async def test_a_worker_decides_on_what_was_said(dsn: str) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    assert await asyncio.to_thread(texts, dsn, "turn")
    assert await asyncio.to_thread(texts, dsn) == []
    await work(dsn, once=True)
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]
    assert jobs(dsn) == []


def test_a_job_has_no_text(dsn: str) -> None:
    say(dsn, "I live in Lisbon.", pause=3600)
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT args::text FROM memgraph_plugin_queue.procrastinate_jobs").fetchone()
    assert found is not None
    assert "turn:" in found[0]
    assert "Lisbon" not in found[0]


def test_exchanges_of_a_conversation_join_one_job_until_it_pauses(dsn: str) -> None:
    with durable.QueueWriter(dsn, 3600) as writer, PostgresMemoryStore(dsn) as store:
        for number in range(3):
            writer.submit(store, submission(f"turn:{number}"), RulePolicy, DECIDING)
        writer.submit(store, submission(thread="other"), RulePolicy, DECIDING)
        writer.submit(store, submission(thread=None), RulePolicy, DECIDING)
        writer.submit(store, submission(thread=None), RulePolicy, DECIDING)
        writer.submit(store, submission(user="bob"), RulePolicy, DECIDING)
        assert jobs(dsn) == [
            ("memories.ana", "todo", 3, 0),
            ("memories.ana", "todo", 1, 0),
            ("memories.ana", "todo", 2, 0),
            ("memories.bob", "todo", 1, 0),
        ]
        assert [each.turns for each in writer.pending(ANA)][:3] == [("turn:0",), ("turn:1",), ("turn:2",)]
    assert forget_jobs(dsn, SCHEMA, ("memories", "ana")) == 3
    assert len(jobs(dsn)) == 1


def test_a_conversation_without_a_pause_is_decided_on_nevertheless(dsn: str) -> None:
    with durable.QueueWriter(dsn, 0.05) as writer, PostgresMemoryStore(dsn) as store:
        writer.submit(store, submission(), RulePolicy, DECIDING)
        with psycopg.connect(dsn, autocommit=True) as conn:
            look = "SELECT scheduled_at FROM memgraph_plugin_queue.procrastinate_jobs"
            writer._pause = 3600
            writer.submit(store, submission(), RulePolicy, DECIDING)
            ((at,),) = conn.execute(look).fetchall()
    assert len(jobs(dsn)) == 1
    assert (at - datetime.now(UTC)).total_seconds() < 2


async def test_a_request_to_forget_meets_what_still_waits(dsn: str) -> None:
    def talk() -> None:
        say(dsn, "I live in Lisbon.", pause=3600)
        say(dsn, "Please forget where I live.", pause=3600, thread="u")

    await asyncio.to_thread(talk)
    assert await asyncio.to_thread(texts, dsn) == []
    alter(dsn, DUE)
    await work(dsn, once=True)
    assert await asyncio.to_thread(texts, dsn) == []


async def test_a_dead_letter_does_not_bring_back_what_was_forgotten(dsn: str) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    alter(dsn, "UPDATE procrastinate_jobs SET status = 'failed'")
    await asyncio.to_thread(say, dsn, "Please forget where I live.", thread="u")
    assert "Lisbon" not in " ".join(await asyncio.to_thread(texts, dsn, "turn", "semantic"))
    durable.replay(dsn, SCHEMA, [letter.id for letter in durable.dead_letters(dsn, SCHEMA)])
    await work(dsn, once=True)
    assert await asyncio.to_thread(texts, dsn) == []


async def test_what_is_erased_while_a_worker_decides_does_not_come_back(dsn: str) -> None:
    def erase() -> None:
        env = {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_EMBEDDINGS": "none"}
        assert CliRunner().invoke(cli, ["forget", "--user", "ana", "--yes"], env=env).exit_code == 0

    class Meanwhile(RulePolicy):
        async def apropose(self, turns: Any, memories: Any) -> Any:
            await asyncio.to_thread(erase)
            return self.propose(turns, memories)

    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    await work(dsn, once=True, policy=Meanwhile)
    assert await asyncio.to_thread(texts, dsn, "turn", "semantic") == []
    assert jobs(dsn) == []


async def test_what_fails_is_tried_again_then_a_dead_letter_that_can_be_replayed(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    real = AsyncPostgresMemoryStore.arecall

    async def broken(*_: Any, **__: Any) -> Any:
        raise StoreError("broken")

    monkeypatch.setattr(AsyncPostgresMemoryStore, "arecall", broken)
    await work(dsn, once=True, attempts=2)
    assert jobs(dsn) == [("memories.ana", "todo", 1, 1)]
    alter(dsn, DUE)
    await work(dsn, once=True, attempts=2)
    assert jobs(dsn) == [("memories.ana", "failed", 1, 2)]
    monkeypatch.setattr(AsyncPostgresMemoryStore, "arecall", real)

    monkeypatch.setenv("MEMGRAPH_PLUGIN_DSN", dsn)
    monkeypatch.setenv("MEMGRAPH_PLUGIN_EMBEDDINGS", "none")

    def by_command() -> None:
        run = CliRunner()
        shown = run.invoke(cli, ["worker", "failed"]).output
        assert re.search(r"^\d+  memories.ana  1 exchanges, 2 attempts: StoreError", shown), shown
        assert any(found.subject == "queue" and found.status == "warn" for found in examine(Settings()))
        assert run.invoke(cli, ["worker", "replay"]).exit_code == 1
        assert run.invoke(cli, ["worker", "replay", "999999"]).exit_code == 1
        assert "1 jobs wait" in run.invoke(cli, ["worker", "replay", "--all"]).output
        assert "No job failed" in run.invoke(cli, ["worker", "failed"]).output

    await asyncio.to_thread(by_command)
    await work(dsn, once=True)
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]


async def test_jobs_of_a_namespace_run_one_at_a_time_and_in_order(dsn: str) -> None:
    seen: list[tuple[str, str]] = []

    class Noting(RulePolicy):
        async def apropose(self, turns: Sequence[Any], memories: Sequence[Any]) -> Any:
            seen.append(("begin", turns[0].text))
            await asyncio.sleep(0.05)
            seen.append(("end", turns[0].text))
            return await super().apropose(turns, memories)

    def talk() -> None:
        for number in range(4):
            say(dsn, f"I have a cat called Tom{number}.", thread=f"t{number}")
        say(dsn, "I live in Rome.", user="bob")

    await asyncio.to_thread(talk)
    await work(dsn, once=True, policy=lambda: Noting(), concurrency=4)
    mine = [each for each in seen if "cat" in each[1]]
    assert mine == [(w, f"I have a cat called Tom{n}.") for n in range(4) for w in ("begin", "end")]


def taken_by_one_that_is_gone(dsn: str) -> None:
    alter(
        dsn,
        "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')",
        "UPDATE procrastinate_jobs SET status = 'doing', "
        "worker_id = (SELECT max(id) FROM procrastinate_workers)",
    )


async def test_a_job_that_cuts_its_worker_off_each_time_is_a_dead_letter(dsn: str) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    alter(dsn, "UPDATE procrastinate_jobs SET status = 'doing', attempts = 7, worker_id = NULL")
    await work(dsn, once=True)
    assert jobs(dsn) == [("memories.ana", "failed", 1, 8)]


async def test_a_job_whose_worker_was_killed_is_done_by_the_next(dsn: str) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    taken_by_one_that_is_gone(dsn)
    await work(dsn, once=True)
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]


def test_the_tables_are_made_once_and_follow_the_library(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert durable.setup(dsn, SCHEMA)
    assert not durable.setup(dsn, SCHEMA)
    found = durable._migrations()
    later = Path(next(iter(found.values()))).with_name("later.sql")
    monkeypatch.setattr(durable, "_migrations", lambda: {**found, "99.00.00_later": later})
    monkeypatch.setattr(Path, "read_text", lambda *_: "CREATE TABLE later ()")
    assert durable.setup(dsn, SCHEMA)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT to_regclass('memgraph_plugin_queue.later')").fetchone() != (None,)


def test_a_schema_may_have_any_name_and_a_connection_its_options(dsn: str) -> None:
    name = 'Ana\'s "odd" sch\\ema'
    where = psycopg.conninfo.make_conninfo(dsn, options="-c application_name=kept")
    with durable.queue(where, name) as app:
        app.connector.execute_query("SELECT count(*) FROM procrastinate_jobs")
        shown = app.connector.execute_query_one("SELECT current_setting('application_name') AS name")
    assert shown["name"] == "kept"


def test_no_database_is_said_plainly() -> None:
    with pytest.raises(StoreError):
        durable.QueueWriter("postgresql://localhost:1/none").pending(ANA)
    with pytest.raises(ConfigurationError):
        durable.QueueWriter("nonsense")


async def test_conversations_of_a_user_do_not_overtake_each_other(dsn: str) -> None:
    def talk() -> None:
        say(dsn, "I have a dog.", pause=3600, thread="one")
        say(dsn, "I like chess.", pause=3600, thread="two")
        say(dsn, "I no longer like chess.", pause=3600, thread="one")

    await asyncio.to_thread(talk)
    assert [each[2] for each in jobs(dsn)] == [1, 1, 1]
    alter(dsn, DUE)
    await work(dsn, once=True)
    assert "The user likes chess." not in await asyncio.to_thread(texts, dsn)


def test_an_exchange_does_not_join_a_job_before_the_one_at_work(dsn: str) -> None:
    with durable.QueueWriter(dsn, 3600) as writer, PostgresMemoryStore(dsn) as store:
        writer.submit(store, submission(), RulePolicy, DECIDING)  # a dead letter, replayed later
        writer.submit(store, submission(thread="other"), RulePolicy, DECIDING)
        alter(dsn, "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = 2")
        writer.submit(store, submission(), RulePolicy, DECIDING)
    assert [each[1:3] for each in jobs(dsn)] == [("todo", 1), ("doing", 1), ("todo", 1)]


async def test_a_job_that_another_worker_has_by_now_is_left_to_it(dsn: str) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    taken_by_one_that_is_gone(dsn)
    async with working.queue_app(durable.queue_conninfo(dsn, SCHEMA), 2).open_async() as app:
        (stale,) = await app.job_manager.get_stalled_jobs()
        await app.job_manager.retry_job(stale)
        worker = await app.job_manager.register_worker()
        taken = await app.job_manager.fetch_job(queues=None, worker_id=worker)
        assert taken is not None
        await app.job_manager.retry_job(stale)
        await app.job_manager.finish_job(stale, Status.FAILED, delete_job=False)
        await app.job_manager.finish_job(stale, Status.SUCCEEDED, delete_job=True)
        assert jobs(dsn) == [("memories.ana", "doing", 1, 1)]
        await app.job_manager.finish_job(taken, Status.SUCCEEDED, delete_job=True)
    assert jobs(dsn) == []


async def test_what_is_cancelled_the_last_time_is_a_dead_letter(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    with monkeypatch.context() as patched:
        patched.setattr(working, "asettle", raising(asyncio.CancelledError()))
        await work(dsn, once=True, attempts=1)
    (letter,) = await asyncio.to_thread(durable.dead_letters, dsn, SCHEMA)
    await asyncio.to_thread(durable.replay, dsn, SCHEMA, [letter.id])
    await work(dsn, once=True)
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]


async def test_a_job_may_have_one_attempt_and_no_fewer(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    monkeypatch.setattr(working, "asettle", raising(OSError()))
    await work(dsn, once=True, attempts=1)
    assert jobs(dsn) == [("memories.ana", "failed", 1, 1)]
    with pytest.raises(ConfigurationError):
        await work(dsn, once=True, attempts=0)


async def test_a_worker_decides_by_the_graphs_safety_and_core(dsn: str) -> None:
    mail = "Remember that my private address is ana@secret.org."
    safety, core = Safety(email="refuse"), [CoreBlock("profile", read_only=True)]
    await asyncio.to_thread(say, dsn, mail, pause=3600, safety=safety, core=core)
    await asyncio.to_thread(say, dsn, "I live in Lisbon.", pause=3600)
    assert [each[2] for each in jobs(dsn)] == [1, 1]  # they are not decided on alike
    seen: list[str] = []

    class Noting(RulePolicy):
        def propose(self, turns: Any, memories: Any) -> Any:
            seen.extend(memory.text for memory in memories if memory.value.get("read_only"))
            return super().propose(turns, memories)

    alter(dsn, DUE)
    await work(dsn, once=True, policy=lambda: Noting())
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]
    assert len(seen) == 1


def test_what_a_queue_cannot_carry_is_refused(dsn: str) -> None:
    class Own(Safety):
        pass

    with durable.QueueWriter(dsn) as writer, PostgresMemoryStore(dsn) as store:
        for how in (Deciding(approve=("delete",)), Deciding(safety=Own())):
            with pytest.raises(ConfigurationError, match="queue"):
                writer.submit(store, submission(), RulePolicy, how)
    assert jobs(dsn) == []


async def test_one_bad_exchange_takes_no_other_with_it(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk() -> None:
        for line in ("I live in Porto.", "I have a dog.", "I like tea."):
            say(dsn, line, pause=3600)

    real = working.asettle

    async def picky(store: Any, each: Submission, *rest: Any) -> Any:
        said = await store.ahistory(each.namespace, each.turns[0])
        if "dog" in said[-1].memory.text:
            raise OSError
        return await real(store, each, *rest)

    await asyncio.to_thread(talk)
    monkeypatch.setattr(working, "asettle", picky)
    alter(dsn, DUE)
    await work(dsn, once=True, attempts=2)
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Porto."]  # in order while it can
    alter(dsn, DUE)
    await work(dsn, once=True, attempts=2)
    assert await asyncio.to_thread(texts, dsn) == ["The user likes tea.", "The user lives in Porto."]
    assert jobs(dsn) == [("memories.ana", "failed", 1, 2)]


async def test_no_log_has_what_was_said(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    monkeypatch.setattr(working, "asettle", raising(StoreError("what was said: I live in Lisbon.")))
    await work(dsn, once=True, attempts=1)
    assert "StoreError" in caplog.text
    assert "Lisbon" not in caplog.text


async def test_waiting_goes_by_the_databases_clock(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "utcnow", lambda: datetime.now(UTC) + timedelta(hours=1))
    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    monkeypatch.setattr(working, "asettle", raising(OSError()))
    await work(dsn, once=True)
    assert [each[1] for each in jobs(dsn)] == ["todo"]
    with psycopg.connect(dsn) as conn:
        look = "SELECT scheduled_at - now() FROM memgraph_plugin_queue.procrastinate_jobs"
        ((left,),) = conn.execute(look).fetchall()
    assert left < timedelta(seconds=10)


async def test_a_model_that_is_out_is_asked_again_before_the_rules_decide(dsn: str) -> None:
    asked: list[str] = []

    class Out(RulePolicy):
        def propose(self, turns: Any, memories: Any) -> Any:
            asked.append(turns[0].text)
            raise ModelReplyError("the model failed: ConnectError", "")

    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    await work(dsn, once=True, attempts=2, policy=lambda: Out())
    assert await asyncio.to_thread(texts, dsn) == []
    alter(dsn, DUE)
    await work(dsn, once=True, attempts=2, policy=lambda: Out())
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]
    assert len(asked) == 2
    assert jobs(dsn) == []


async def test_a_model_that_answers_nonsense_is_not_asked_for_minutes(dsn: str) -> None:
    class Nonsense(RulePolicy):
        def propose(self, turns: Any, memories: Any) -> Any:
            raise ModelReplyError("not JSON", "I'd be glad to!")

    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    await work(dsn, once=True, policy=lambda: Nonsense())
    assert await asyncio.to_thread(texts, dsn) == ["The user lives in Lisbon."]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of that kind")
async def test_a_second_signal_is_the_systems_and_afterwards_all_is_as_before(dsn: str) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    begun, going = asyncio.Event(), asyncio.Event()

    class Slow(RulePolicy):
        async def apropose(self, turns: Sequence[Any], memories: Sequence[Any]) -> Any:
            begun.set()
            await going.wait()
            return await super().apropose(turns, memories)

    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    worker = asyncio.create_task(work(dsn, policy=lambda: Slow()))
    await begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    going.set()
    await worker
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert jobs(dsn) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of that kind")
async def test_a_worker_whose_database_is_gone_stops_soon(dsn: str, postgres: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    await asyncio.to_thread(durable.setup, dsn, SCHEMA)
    worker = asyncio.create_task(work(dsn))
    await until(lambda: registered(dsn))
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    await asyncio.sleep(1.5)
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    await worker
    assert time.monotonic() - began < 20


async def test_an_exchange_that_takes_for_ever_is_given_up(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hanging(*_: Any) -> Any:
        await asyncio.Event().wait()

    await asyncio.to_thread(say, dsn, "I live in Lisbon.")
    monkeypatch.setattr(working, "asettle", hanging)
    monkeypatch.setattr(working, "LONGEST", 0.1)
    await work(dsn, once=True, attempts=1)
    (letter,) = await asyncio.to_thread(durable.dead_letters, dsn, SCHEMA)
    assert letter.error.startswith("TimeoutError")


async def test_a_worker_gives_signs_of_life_as_often_as_any_other(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "BEAT", 0.1)
    await asyncio.to_thread(durable.setup, dsn, SCHEMA)
    worker = asyncio.create_task(work(dsn, stalled=600))
    await until(lambda: registered(dsn))
    alter(dsn, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    await until(lambda: registered(dsn, "last_heartbeat > now() - interval '1 minute'"))
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker


def test_kill_9_of_worker_and_database_amid_twenty_jobs() -> None:
    command = [sys.executable, BENCHMARKS / "queue_crash.py", "--jobs", "20", "--kills", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"lost +│ +0", done.stdout), done.stdout
    assert re.search(r"applied twice +│ +0", done.stdout)

"""The worker that writes memory after the answer, and what it could not do."""

from __future__ import annotations

from typing import Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError


def worker(
    context: typer.Context,
    concurrency: Annotated[int, typer.Option(min=1, help="Users (namespaces) at a time.")] = 4,
    once: Annotated[bool, typer.Option("--once", help="Do what is due, and end.")] = False,
    stalled: Annotated[
        float, typer.Option(min=30, help="Seconds without a sign of life until a worker's jobs are others'.")
    ] = 30.0,
) -> None:
    """Decide what conversations change in memory, from the queue in the database, until Ctrl-C.

    Any number of workers may run, on any machine. Servers fill the queue with MEMGRAPH_PLUGIN_WRITE=queue.

    Example: memgraph-plugin worker --concurrency 8
    """
    if context.invoked_subcommand is not None:
        return
    import asyncio
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_work(concurrency, once, stalled))


async def _work(concurrency: int, once: bool, stalled: float) -> None:
    import asyncio
    from functools import partial

    from memgraph_plugin.graph import chosen_policy
    from memgraph_plugin.models.chat import load_chat_model
    from memgraph_plugin.nodes.decide import policy_source
    from memgraph_plugin.store.open import aopen_store, database
    from memgraph_plugin.working import work

    used = options.settings()
    if used.policy == "model" and used.chat_model is None:
        raise ConfigurationError("MEMGRAPH_PLUGIN_POLICY=model needs MEMGRAPH_PLUGIN_CHAT_MODEL.")
    load = partial(load_chat_model, used.chat_model or "", base_url=used.base_url, cache_dir=used.cache_dir)
    policy = policy_source(chosen_policy(used.policy, load))
    where = await asyncio.to_thread(database, used)
    async with aopen_store(used) as store:
        await work(where, used.db_schema, store, policy, concurrency=concurrency, once=once, stalled=stalled)


def failed() -> None:
    """List the jobs that failed for good: whose, how much, and of what. Nothing of them is lost.

    Example: memgraph-plugin worker failed
    """
    from memgraph_plugin import durable
    from memgraph_plugin.store.open import database

    used = options.settings()
    letters = durable.dead_letters(database(used), used.db_schema)
    for letter in letters:
        typer.echo(
            f"{letter.id}  {letter.namespace}  {letter.exchanges} exchanges, {letter.attempts} attempts: "
            f"{letter.error or 'cut off'}"
        )
    if not letters:
        typer.echo("No job failed.")


def replay(
    jobs: Annotated[list[int] | None, typer.Argument(help="Jobs, as `failed` shows them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that failed.")] = False,
) -> None:
    """Have jobs that failed tried again, by the workers; what they had written is not written twice.

    Example: memgraph-plugin worker replay --all
    """
    from memgraph_plugin import durable
    from memgraph_plugin.store.open import database

    if bool(jobs) == every:
        raise ConfigurationError("Name the jobs to replay, or give --all.")
    used = options.settings()
    where = database(used), used.db_schema
    ids = jobs or [letter.id for letter in durable.dead_letters(*where)]
    durable.replay(*where, ids)
    typer.echo(f"{len(ids)} jobs wait to be tried again.")

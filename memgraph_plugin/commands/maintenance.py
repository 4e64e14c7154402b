"""The command that keeps a database in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options

if TYPE_CHECKING:
    from memgraph_plugin.store.maintenance import Survey


def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only measure, and say what would be done.")
    ] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Write every table anew; nobody can use it meanwhile.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --cluster.")] = False,
    files: Annotated[
        bool,
        typer.Option(
            "--files",
            help="Remove files of compressed memories that no row names; no other database may use KV_DIR.",
        ),
    ] = False,
) -> None:
    """Put scattered memories side by side, give back the room of erased ones, mend indexes; while in use.

    Texts that were erased may stay in unused parts of the files. With --cluster these are written anew, in
    less room and in the best order.

    Example: memgraph-plugin maintain --dry-run
    """
    from memgraph_plugin.store import maintenance
    from memgraph_plugin.store.kv_files import KVFiles
    from memgraph_plugin.store.open import database
    from memgraph_plugin.terminal import counting

    used = options.settings()
    where = database(used), used.db_schema
    found = maintenance.survey(*where)
    typer.echo(_said(found))
    for each in found.scattered[:10]:
        typer.echo(f"  scattered: {each.rows:,} rows on {each.pages:,} pages, where {each.fewest:,} would do")
    for name in found.worn_indexes:
        typer.echo(f"  worn or broken: index {name}")
    unnamed = [] if used.kv_dir is None else maintenance.unnamed(*where, KVFiles(used.kv_dir))
    if unnamed:
        size = sum(path.stat().st_size for path in unnamed) / 1e6
        told = "" if files else "; if this database alone uses that folder: memgraph-plugin maintain --files"
        typer.echo(f"  left by a killed process: {len(unnamed)} files in {used.kv_dir}, {size:,.1f} MB{told}")
    todo = (
        ["all tables would be written anew"]
        if cluster
        else [
            *([f"{len(found.scattered)} namespaces would be moved"] if found.scattered else []),
            *([f"{len(found.worn_indexes)} indexes would be made anew"] if found.worn_indexes else []),
        ]
    )
    todo += [f"{len(unnamed)} files would be removed"] if unnamed and files else []
    if dry_run:
        typer.echo("; ".join([*todo, "all tables would be vacuumed"]).capitalize() + ".")
        return
    if cluster and not yes:
        typer.confirm(
            "Nobody can read or write a table while it is written anew, which takes up to "
            f"{found.heap_bytes / 1e6:,.0f} MB of free room. Go on?",
            abort=True,
        )
    with counting(options.console(err=True), "steps") as progress:
        _, now = maintenance.maintain(*where, cluster=cluster, progress=progress)
    if files:
        for path in unnamed:
            path.unlink(missing_ok=True)
    typer.echo(f"Now: {_said(now)}")


def _said(found: Survey) -> str:
    return (
        f"Tables {found.heap_bytes / 1e6:,.1f} MB, indexes {found.index_bytes / 1e6:,.1f} MB, "
        f"{found.dead_rows:,} dead rows, {len(found.scattered)} scattered namespaces."
    )

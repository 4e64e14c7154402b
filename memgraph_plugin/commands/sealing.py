"""The command that encrypts what is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from memgraph_plugin.commands.options import console, settings
from memgraph_plugin.errors import ConfigurationError


def seal(
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Only make a key, and print it.")
    ] = None,
) -> None:
    """Encrypt what is stored, with the first of MEMGRAPH_PLUGIN_SEALING_KEYS.

    To begin: make a key, keep it where the database is not, set the variable for every process, and run this.
    To change the key: put a new one in front of the old, run this, then take the old one away. Without the
    keys nobody reads these memories again.

    Example: memgraph-plugin seal --new-key 2026
    """
    from memgraph_plugin.store.kv_files import KVFiles
    from memgraph_plugin.store.open import database, open_store, sealer
    from memgraph_plugin.store.resealing import reseal, reseal_compressed
    from memgraph_plugin.store.sealing import new_key as made
    from memgraph_plugin.terminal import counting

    if new_key is not None:
        typer.echo(made(new_key))
        return
    used = settings()
    found = sealer(used)
    if found is None:
        raise ConfigurationError(
            "No keys: set MEMGRAPH_PLUGIN_SEALING_KEYS (`memgraph-plugin seal --new-key NAME` makes one)."
        )
    with counting(console(err=True), "rows") as progress:
        written = reseal(database(used), used.db_schema, found, progress=progress)
    files = None if used.kv_dir is None else KVFiles(used.kv_dir)
    with open_store(used) as store, counting(console(err=True), "compressed memories") as progress:
        compressed = reseal_compressed(store, database(used), used.db_schema, found, files, progress=progress)
    typer.echo(f"Sealed {compressed:,} compressed memories that were not sealed with this key.")
    typer.echo(f"Sealed {written:,} rows that were not sealed with this key.")

"""What memory needs, checked one thing a line, with what to do about what is missing. Reads no memory."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memgraph_plugin import __version__
from memgraph_plugin.errors import MemgraphPluginError
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.models.embeddings import embedding_name, load_embeddings
from memgraph_plugin.models.pull import list_models
from memgraph_plugin.settings import Settings
from memgraph_plugin.store import roles, schema
from memgraph_plugin.store.jobs import jobs_by_status
from memgraph_plugin.store.open import database
from memgraph_plugin.store.sql import query

POSTGRES = 14
"""The oldest major version whose SQL functions have the bodies that the schema uses."""

PGVECTOR = (0, 7)
"""The oldest version with halfvec."""

ROOM = 1_000_000_000
"""Bytes free, below which it warns."""

SECONDS = 10
"""To wait for a database."""

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_SECRET = {"password", "sslpassword"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. "fail": memory does not work so; `advice` says what to do."""

    status: Literal["ok", "warn", "fail"]
    subject: str
    found: str
    advice: str = ""


def report(settings: Settings, console: Console) -> int:
    """Print each finding as it is made; the exit status: 1 if anything fails."""
    failed = 0
    for finding in examine(settings):
        failed += finding.status == "fail"
        said = Text(finding.found)
        if finding.advice:
            said.append(f"\n-> {finding.advice}", style="dim")
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(width=4)
        line.add_column(width=12)
        line.add_column(overflow="fold")
        line.add_row(Text(finding.status, style=_STYLES[finding.status]), finding.subject, said)
        console.print(line)
    return 1 if failed else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything that is checked, in the order in which it is needed. Starts the private Postgres."""
    yield Finding("ok", "versions", f"memgraph-plugin {__version__}, Python {platform.python_version()}")
    yield from _extras()
    yield from _database(settings)
    yield from _models(settings)
    yield from _rooms(settings)


def _extras() -> Iterator[Finding]:
    parts: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("memgraph-plugin") or []:
        if found := re.match(r"([\w.-]+).*extra\s*==\s*['\"](\w+)['\"]", requirement):
            parts.setdefault(found[2], []).append(found[1])
    for extra, packages in sorted(parts.items()):
        missing = [name for name in packages if name != "memgraph-plugin" and not _is_installed(name)]
        if missing and extra != "all":
            advice = f'to use it: pip install "memgraph-plugin[{extra}]"'
            yield Finding("warn", "extra", f"{extra}: without {', '.join(missing)}", advice)
        elif extra != "all":
            yield Finding("ok", "extra", f"{extra}: installed")


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _database(settings: Settings) -> Iterator[Finding]:
    if settings.dsn is None:
        where, advice = f"private Postgres in {settings.data_dir}", "memgraph-plugin db status"
    else:
        where, advice = without_password(settings.dsn.get_secret_value()), "check MEMGRAPH_PLUGIN_DSN"
    try:
        conninfo = database(settings)
        with closing(psycopg.connect(conninfo, autocommit=True, connect_timeout=SECONDS)) as conn:
            yield Finding("ok", "database", where)
            for check in (_version, _pgvector, _role, _schema, _rows, _embeddings, _queue):
                yield check(conn, settings)
    except psycopg.ProgrammingError as error:
        # A connection string that cannot be read is quoted in the error, with its password.
        said = str(error).strip() if isinstance(error, psycopg.errors.Error) and error.sqlstate else ""
        yield Finding("fail", "database", said or "the connection string cannot be read", advice)
    except (psycopg.Error, MemgraphPluginError) as error:
        yield Finding("fail", "database", f"{where}: {' '.join(str(error).split())}", advice)


def without_password(conninfo: str) -> str:
    """A connection string that can be shown."""
    try:
        parts: dict[str, Any] = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        return "(a connection string that cannot be read)"
    return make_conninfo(**{name: value for name, value in parts.items() if name not in _SECRET})


def _one(conn: psycopg.Connection[Any], statement: str, *values: Any) -> tuple[Any, ...] | None:
    found: tuple[Any, ...] | None = conn.execute(statement.encode(), values or None).fetchone()
    return found


def _version(conn: psycopg.Connection[Any], _: Settings) -> Finding:
    major, name = conn.info.server_version // 10_000, conn.info.parameter_status("server_version")
    if major < POSTGRES:
        return Finding("fail", "Postgres", f"{name}", f"use Postgres {POSTGRES} or newer")
    return Finding("ok", "Postgres", f"{name}")


def _pgvector(conn: psycopg.Connection[Any], _: Settings) -> Finding:
    available = _one(
        conn,
        "SELECT a.installed_version, a.default_version, "
        "coalesce(v.trusted, false) OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) "
        "FROM pg_available_extensions a LEFT JOIN pg_available_extension_versions v "
        "ON v.name = a.name AND v.version = a.default_version WHERE a.name = 'vector'",
    )
    if available is None:
        advice = "install it: https://github.com/pgvector/pgvector#installation"
        return Finding("fail", "pgvector", "this Postgres has none", advice)
    installed, default, may_install = available
    version = tuple(int(part) for part in re.findall(r"\d+", installed or default)[:2])
    if version < PGVECTOR:
        advice = "upgrade it, then: ALTER EXTENSION vector UPDATE"
        return Finding("fail", "pgvector", f"{installed or default} has no halfvec", advice)
    if installed:
        return Finding("ok", "pgvector", installed)
    if may_install:
        return Finding("ok", "pgvector", f"{default} is there; `memgraph-plugin migrate` installs it")
    advice = "ask a superuser for: CREATE EXTENSION vector"
    return Finding("fail", "pgvector", f"{default} is not installed in this database", advice)


def _role(conn: psycopg.Connection[Any], settings: Settings) -> Finding:
    found = _one(
        conn,
        "SELECT current_user, rolsuper, rolbypassrls, EXISTS (SELECT FROM pg_tables "
        "WHERE schemaname = %s AND pg_has_role(tableowner, 'MEMBER')) "
        "FROM pg_roles WHERE rolname = current_user",
        settings.db_schema,
    )
    name, is_super, bypasses, owns = found or ("", False, False, False)
    if not (is_super or bypasses or owns):
        return Finding("ok", "role", f"{name}, bound by row-level security")
    power = "a superuser" if is_super else "a role with BYPASSRLS" if bypasses else "an owner of the tables"
    if settings.dsn is None:
        return Finding("ok", "role", f"{name}, {power} of the private Postgres, which has no other")
    does = "is not bound by" if is_super or bypasses else "could lift"
    advice = "connect the application as a role that `memgraph-plugin migrate --role NAME` gave its rights"
    return Finding("warn", "role", f"{name} is {power} and {does} row-level security", advice)


def _rows(conn: psycopg.Connection[Any], settings: Settings) -> Finding:
    """Row-level security on the tables, and what the role may do on them."""
    if schema.current_version(conn, settings.db_schema) != schema.NEWEST:
        return Finding("warn", "rows", "row-level security comes with the schema", "memgraph-plugin migrate")
    tables = list(roles.guards(conn, settings.db_schema))
    if lifted := [guard.table for guard in tables if not guard.enforced]:
        advice = "ALTER TABLE ... ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        return Finding("fail", "rows", f"row-level security is off on {', '.join(lifted)}", advice)
    if lacking := [f"{' and '.join(guard.missing)} on {guard.table}" for guard in tables if guard.missing]:
        advice = "memgraph-plugin migrate --role NAME, as the owner of the tables"
        return Finding("fail", "rows", f"the role lacks {', '.join(lacking)}", advice)
    tenant = " and ".join(roles.tenants(conn, settings.db_schema))
    bound = f"; this role is bound to {tenant}" if tenant else ""
    return Finding("ok", "rows", f"row-level security is on{bound}")


def _schema(conn: psycopg.Connection[Any], settings: Settings) -> Finding:
    at, name = schema.current_version(conn, settings.db_schema), settings.db_schema
    if at == schema.NEWEST:
        return Finding("ok", "schema", f"{name}, up to date (at {at})")
    if at > schema.NEWEST:
        advice = "upgrade memgraph-plugin"
        return Finding("fail", "schema", f"{name} is at {at}, this package knows {schema.NEWEST}", advice)
    if at == 0:
        return Finding("warn", "schema", f"{name} is not there yet", "memgraph-plugin migrate")
    advice = "memgraph-plugin migrate"
    return Finding("fail", "schema", f"{name} is at {at}, this package needs {schema.NEWEST}", advice)


def _embeddings(conn: psycopg.Connection[Any], settings: Settings) -> Finding:
    configured = None
    if settings.embeddings != "none":
        try:
            configured = embedding_name(load_embeddings(settings.embeddings, base_url=settings.base_url))
        except MemgraphPluginError as error:
            return Finding("fail", "embeddings", str(error), "or set MEMGRAPH_PLUGIN_EMBEDDINGS=none")
    stored = None
    if schema.current_version(conn, settings.db_schema):
        stored = _one(conn, query("embedding_model", settings.db_schema))
    if configured is None:
        return Finding("ok", "embeddings", "none: memories are ranked by words alone")
    if stored is None:
        return Finding("ok", "embeddings", f"{configured}; the database holds no vectors yet")
    if stored[0] != configured:
        found = f"configured is {configured}, the database holds vectors of {stored[0]}"
        advice = f"set MEMGRAPH_PLUGIN_EMBEDDINGS={stored[0]}, or run: memgraph-plugin migrate --reembed"
        return Finding("fail", "embeddings", found, advice)
    return Finding("ok", "embeddings", f"{configured} ({stored[1]} dimensions), as in the database")


def _queue(conn: psycopg.Connection[Any], settings: Settings) -> Finding:
    jobs = jobs_by_status(conn, settings.db_schema)
    if jobs is None:
        return Finding("ok", "queue", "none: memory is written with the answer (MEMGRAPH_PLUGIN_WRITE)")
    found = f"{jobs.get('todo', 0)} conversations wait, {jobs.get('doing', 0)} are being decided on"
    if failed := jobs.get("failed"):
        return Finding("warn", "queue", f"{found}, {failed} failed", "memgraph-plugin worker failed")
    return Finding("ok", "queue", found)


def _models(settings: Settings) -> Iterator[Finding]:
    if settings.chat_model:
        try:
            load_chat_model(settings.chat_model, base_url=settings.base_url, cache_dir=settings.cache_dir)
            yield Finding("ok", "chat model", settings.chat_model)
        except MemgraphPluginError as error:
            yield Finding("fail", "chat model", str(error), "see MEMGRAPH_PLUGIN_CHAT_MODEL")
    else:
        yield Finding("ok", "chat model", "none configured: answers quote what is remembered")
    for listed in list_models(settings.cache_dir):
        name = listed.mirror.name
        found = f"{name} is here" if listed.path else f"{name}, not pulled"
        yield Finding(
            "ok", "local model", found, "" if listed.path else f"memgraph-plugin models pull {name}"
        )
    yield Finding("ok", "processor", _processor())


def _processor() -> str:
    try:
        import torch
    except ImportError:
        return "local models need the extra `local`"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"no GPU that torch {torch.__version__} can use; local models run on the CPU"


def _rooms(settings: Settings) -> Iterator[Finding]:
    private: list[tuple[str, Path]] = [("memories", settings.data_dir)] if settings.dsn is None else []
    for what, folder in [*private, ("models", settings.cache_dir)]:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        free = shutil.disk_usage(there).free
        found = f"{free / 1e9:,.1f} GB free for {what} in {folder}"
        yield Finding("warn" if free < ROOM else "ok", "disk", found, "free some" if free < ROOM else "")

"""Settings, read once at the edges (CLI, deployable graphs, servers) and passed in from there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every field is an environment variable with the prefix MEMGRAPH_PLUGIN_."""

    model_config = SettingsConfigDict(env_prefix="MEMGRAPH_PLUGIN_", frozen=True, extra="ignore")

    dsn: SecretStr | None = Field(None, description="Postgres to use; unset: a private one is started")
    db_schema: str = Field("memgraph_plugin", description="Postgres schema that holds the tables")
    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("memgraph-plugin"),
        description="the private Postgres",
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("memgraph-plugin"), description="pulled models"
    )
    chat_model: str | None = Field(None, description='"openai:...", "local:<name or path>"; unset: none')
    base_url: str | None = Field(None, description="base URL of an OpenAI-compatible server")
    embeddings: str = Field("local:minilm", description='"openai:...", "local:<name or path>" or "none"')
    language: str = Field("english", description="Postgres text search configuration of new memories")
    policy: Literal["rules", "model"] = Field("rules", description="who decides what to remember")
    write: Literal["now", "queue"] = Field(
        "now", description='when a server decides what to remember: with the answer, or by "worker"s, later'
    )
    write_pause: float = Field(
        5, ge=0, description="seconds that a conversation must be still before a worker decides on it"
    )
    sealing_keys: SecretStr | None = Field(
        None, description='"NAME:BASE64,..." to encrypt memories with; the first seals, all open'
    )
    default_ttl: float | None = Field(
        None, gt=0, description="minutes that what is put lives on after it was last read; unset: for ever"
    )
    sweep_interval_minutes: float = Field(
        5, gt=0, description="minutes after which a server lets go of what has expired"
    )
    kv_dir: Path | None = Field(
        None, description="directory for large compressed memories; unset: they are in the database"
    )
    selfmem_task: str = Field(
        "Do with the last message what was done with those before it.",
        description="what the Selfmem graph's model is to do with a source",
    )
    k: int = Field(10, ge=1, description="memories recalled a turn, at most")
    token_budget: int = Field(1200, ge=1, description="tokens of memory injected a turn, at most")

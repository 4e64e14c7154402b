"""A conversational assistant that remembers across sessions, for `langgraph dev`: settings in, graph out.

Configured by MEMGRAPH_PLUGIN_* variables (see `memgraph_plugin.settings`); the store is the one that
langgraph.json names. The chat model is loaded at the first answer. With MEMGRAPH_PLUGIN_WRITE=queue, what was
said is stored with the answer, and `memgraph-plugin worker` decides on it.
"""

from functools import partial

from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.nodes.submit import MemoryWriter
from memgraph_plugin.settings import Settings

settings = Settings()

load_model = partial(
    load_chat_model, settings.chat_model or "", base_url=settings.base_url, cache_dir=settings.cache_dir
)


def writer() -> MemoryWriter | None:
    """Who writes memory after the answer; nobody, where that is done at once."""
    if settings.write == "now":
        return None
    from memgraph_plugin.durable import QueueWriter
    from memgraph_plugin.store.open import database

    return QueueWriter(database(settings), settings.write_pause, db_schema=settings.db_schema)


graph = build_memory_graph(
    load_model if settings.chat_model else None,
    policy=settings.policy,
    k=settings.k,
    token_budget=settings.token_budget,
    writer=writer(),
)

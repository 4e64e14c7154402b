"""A conversational assistant that remembers across sessions, for `langgraph dev`: settings in, graph out.

Configured by MEMGRAPH_PLUGIN_* variables (see `memgraph_plugin.settings`); the store is the one that
langgraph.json names. The chat model is loaded at the first answer.
"""

from functools import partial

from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.settings import Settings

settings = Settings()

load_model = partial(
    load_chat_model, settings.chat_model or "", base_url=settings.base_url, cache_dir=settings.cache_dir
)

graph = build_memory_graph(
    load_model if settings.chat_model else None,
    policy=settings.policy,
    k=settings.k,
    token_budget=settings.token_budget,
)

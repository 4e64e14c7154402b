"""A source drafted with self-memory, for `langgraph dev`: settings in, graph out.

Pairs to go by are stored under the user's namespace (`nodes.examples.insert_of`). Configured by
MEMGRAPH_PLUGIN_* variables (see `memgraph_plugin.settings`); the store is the one that langgraph.json names.
The chat model is loaded at the first draft.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.loop import Plan
from memgraph_plugin.selfmem.protocols import Generator
from memgraph_plugin.selfmem_graph import Selfmem, build_selfmem_graph
from memgraph_plugin.settings import Settings

settings = Settings()


@cache
def generator() -> Generator:
    from memgraph_plugin.models.chat import load_chat_model
    from memgraph_plugin.selfmem.chat_generator import ChatModelGenerator

    if not settings.chat_model:
        raise ConfigurationError("Set MEMGRAPH_PLUGIN_CHAT_MODEL: a draft needs a model.")
    model = load_chat_model(settings.chat_model, base_url=settings.base_url, cache_dir=settings.cache_dir)
    return ChatModelGenerator(model, settings.selfmem_task)


def load(_: Mapping[str, Any]) -> Generator:
    return generator()


graph = build_selfmem_graph(load, Selfmem().selector, plan=Plan(pool=4))

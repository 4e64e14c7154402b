"""What a conversation changes in memory, decided on by itself, for `langgraph dev`: settings in, graph out.

Configured by MEMGRAPH_PLUGIN_* variables (see `memgraph_plugin.settings`); the store is the one that
langgraph.json names. A chat model that decides is loaded at the first exchange.
"""

from functools import partial

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.graph import chosen_policy
from memgraph_plugin.memory_writer_graph import build_memory_writer_graph
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.settings import Settings

settings = Settings()

if settings.policy == "model" and settings.chat_model is None:
    raise ConfigurationError("MEMGRAPH_PLUGIN_POLICY=model needs MEMGRAPH_PLUGIN_CHAT_MODEL.")

load_model = partial(
    load_chat_model, settings.chat_model or "", base_url=settings.base_url, cache_dir=settings.cache_dir
)

graph = build_memory_writer_graph(chosen_policy(settings.policy, load_model))

"""Lasting memory for LangChain and LangGraph agents, on your own Postgres. Names load when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memgraph_plugin.background import BackgroundWriter
    from memgraph_plugin.consolidation import consolidate
    from memgraph_plugin.documents import read_documents
    from memgraph_plugin.documents_graph import build_documents_graph
    from memgraph_plugin.durable import QueueWriter
    from memgraph_plugin.errors import MemgraphPluginError
    from memgraph_plugin.graph import build_memory_graph
    from memgraph_plugin.integrations.langchain import MemoryMiddleware
    from memgraph_plugin.integrations.llama_index import passages_of
    from memgraph_plugin.integrations.tools import MemoryRetriever, memory_tools
    from memgraph_plugin.memalpha.blocks import CoreBlock
    from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
    from memgraph_plugin.memalpha.local_policy import LocalPolicy
    from memgraph_plugin.memalpha.policies import Policy
    from memgraph_plugin.memalpha.rules import RulePolicy
    from memgraph_plugin.memalpha.safety import Safety
    from memgraph_plugin.memalpha.shadow_policy import ShadowPolicy
    from memgraph_plugin.memalpha.trained_policy import TrainedPolicy
    from memgraph_plugin.memorag.drafters import ChatModelDrafter, MemoryModelDrafter
    from memgraph_plugin.memory_writer_graph import build_memory_writer_graph
    from memgraph_plugin.models.chat import load_chat_model
    from memgraph_plugin.models.embeddings import load_embeddings
    from memgraph_plugin.nodes.scope import user_namespace
    from memgraph_plugin.selfmem_graph import Selfmem, build_selfmem_graph, draft_tool
    from memgraph_plugin.settings import Settings
    from memgraph_plugin.state import MemoryContext, MemoryState
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.store.in_memory import InMemoryMemoryStore
    from memgraph_plugin.store.kv_files import KVFiles
    from memgraph_plugin.store.open import aopen_store, open_store
    from memgraph_plugin.store.postgres import PostgresMemoryStore
    from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
    from memgraph_plugin.types import (
        Clue,
        Delete,
        Document,
        Erasure,
        Held,
        Hit,
        Imported,
        Insert,
        KVRecord,
        Memory,
        NoOp,
        Operation,
        Receipt,
        Receipts,
        Turn,
        Update,
    )

__version__ = "0.1.0"

_HOMES = {
    "background": ("BackgroundWriter",),
    "consolidation": ("consolidate",),
    "documents": ("read_documents",),
    "documents_graph": ("build_documents_graph",),
    "durable": ("QueueWriter",),
    "errors": ("MemgraphPluginError",),
    "graph": ("build_memory_graph",),
    "integrations.langchain": ("MemoryMiddleware",),
    "integrations.llama_index": ("passages_of",),
    "integrations.tools": ("MemoryRetriever", "memory_tools"),
    "memalpha.blocks": ("CoreBlock",),
    "memalpha.chat_policy": ("ChatModelPolicy",),
    "memalpha.local_policy": ("LocalPolicy",),
    "memalpha.policies": ("Policy",),
    "memalpha.rules": ("RulePolicy",),
    "memalpha.safety": ("Safety",),
    "memalpha.shadow_policy": ("ShadowPolicy",),
    "memalpha.trained_policy": ("TrainedPolicy",),
    "memorag.drafters": ("ChatModelDrafter", "MemoryModelDrafter"),
    "memory_writer_graph": ("build_memory_writer_graph",),
    "models.chat": ("load_chat_model",),
    "models.embeddings": ("load_embeddings",),
    "nodes.scope": ("user_namespace",),
    "selfmem_graph": ("Selfmem", "build_selfmem_graph", "draft_tool"),
    "settings": ("Settings",),
    "state": ("MemoryContext", "MemoryState"),
    "store.base": ("MemoryStore",),
    "store.in_memory": ("InMemoryMemoryStore",),
    "store.kv_files": ("KVFiles",),
    "store.open": ("aopen_store", "open_store"),
    "store.postgres": ("PostgresMemoryStore",),
    "store.postgres_async": ("AsyncPostgresMemoryStore",),
    "types": (
        "Clue",
        "Delete",
        "Document",
        "Erasure",
        "Held",
        "Hit",
        "Imported",
        "Insert",
        "KVRecord",
        "Memory",
        "NoOp",
        "Operation",
        "Receipt",
        "Receipts",
        "Turn",
        "Update",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncPostgresMemoryStore",
    "BackgroundWriter",
    "ChatModelDrafter",
    "ChatModelPolicy",
    "Clue",
    "CoreBlock",
    "Delete",
    "Document",
    "Erasure",
    "Held",
    "Hit",
    "Imported",
    "InMemoryMemoryStore",
    "Insert",
    "KVFiles",
    "KVRecord",
    "LocalPolicy",
    "MemgraphPluginError",
    "Memory",
    "MemoryContext",
    "MemoryMiddleware",
    "MemoryModelDrafter",
    "MemoryRetriever",
    "MemoryState",
    "MemoryStore",
    "NoOp",
    "Operation",
    "Policy",
    "PostgresMemoryStore",
    "QueueWriter",
    "Receipt",
    "Receipts",
    "RulePolicy",
    "Safety",
    "Selfmem",
    "Settings",
    "ShadowPolicy",
    "TrainedPolicy",
    "Turn",
    "Update",
    "aopen_store",
    "build_documents_graph",
    "build_memory_graph",
    "build_memory_writer_graph",
    "build_selfmem_graph",
    "consolidate",
    "draft_tool",
    "load_chat_model",
    "load_embeddings",
    "memory_tools",
    "open_store",
    "passages_of",
    "read_documents",
    "user_namespace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)

"""Questions about documents, answered with citations, for `langgraph dev`: settings in, graph out.

Documents come in by `memgraph-plugin memorize PATH --user NAME`, or along with a question. Configured by
MEMGRAPH_PLUGIN_* variables (see `memgraph_plugin.settings`); the store is the one that langgraph.json names.
"""

from functools import partial

from memgraph_plugin.documents_graph import build_documents_graph
from memgraph_plugin.drafting import drafters, load_compressor, load_gist_model
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.settings import Settings
from memgraph_plugin.types import Document, Insert

settings = Settings()

load_model = partial(
    load_chat_model, settings.chat_model or "", base_url=settings.base_url, cache_dir=settings.cache_dir
)


def split(document: Document) -> list[Insert]:
    """Passages by LlamaIndex, which is loaded when the first document comes."""
    from memgraph_plugin.integrations.llama_index import passages_of

    return passages_of(document)


graph = build_documents_graph(
    load_model if settings.chat_model else None,
    split=split,
    clues=drafters(
        partial(load_compressor, cache_dir=settings.cache_dir),
        partial(load_gist_model, base_url=settings.base_url, cache_dir=settings.cache_dir),
    ),
)

"""What it takes to test with memory and without a model, a key or a network."""

from typing import TYPE_CHECKING, Any

from memgraph_plugin.testing.chat_model import ScriptedChatModel
from memgraph_plugin.testing.embeddings import HashingEmbeddings
from memgraph_plugin.testing.openai_server import Fault, OpenAIServer

if TYPE_CHECKING:
    from memgraph_plugin.testing.conformance import StoreConformance

__all__ = ["Fault", "HashingEmbeddings", "OpenAIServer", "ScriptedChatModel", "StoreConformance"]


def __getattr__(name: str) -> Any:
    """`StoreConformance` needs pytest, which the rest does without."""
    if name == "StoreConformance":
        from memgraph_plugin.testing.conformance import StoreConformance

        return StoreConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What it takes to test with memory and without a model, a key or a network."""

from memgraph_plugin.testing.chat_model import ScriptedChatModel
from memgraph_plugin.testing.embeddings import HashingEmbeddings
from memgraph_plugin.testing.openai_server import Fault, OpenAIServer

__all__ = ["Fault", "HashingEmbeddings", "OpenAIServer", "ScriptedChatModel"]

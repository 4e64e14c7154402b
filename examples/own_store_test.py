"""Testing your own agent without a model, a database, a key or a network.

Needs: pip install "memgraph-plugin[langchain]" pytest. Run it as it is, or with pytest.
"""

import sys

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langgraph.store.base import BaseStore

from memgraph_plugin import InMemoryMemoryStore, MemoryContext, MemoryMiddleware
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel

FRIDA = ("memories", "frida")


def reply(model: BaseChatModel, store: BaseStore, said: str) -> str:
    """Your own code: whatever it does, it takes its model and its store from outside."""
    agent = create_agent(model, middleware=[MemoryMiddleware()], context_schema=MemoryContext, store=store)
    result = agent.invoke({"messages": [HumanMessage(said)]}, context=MemoryContext(user_id="frida"))
    return str(result["messages"][-1].text)


def test_what_was_said_reaches_the_model_in_the_next_conversation() -> None:
    store = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    model = ScriptedChatModel(replies=["How nice.", "You play the cello."])
    reply(model, store, "I play the cello.")
    assert reply(model, store, "Which instrument do I play?") == "You play the cello."
    assert "cello" in model.prompts[1][0].text


def test_a_correction_leaves_a_history() -> None:
    store = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    model = ScriptedChatModel(replies=["Noted."], repeat_last=True)
    reply(model, store, "I live in Oslo.")
    reply(model, store, "I moved to Bergen.")
    (home,) = store.recall(FRIDA, "Where does she live?", kinds=("core", "semantic"))
    assert "Bergen" in home.memory.text
    assert "Oslo" in str(store.history(FRIDA, home.memory.key)[0].memory)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-v"]))

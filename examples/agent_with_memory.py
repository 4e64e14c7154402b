"""An agent that remembers: what Ana says in one thread, it knows in another. Run it twice: it still does.

Needs: pip install "memgraph-plugin[openai,local]", and OPENAI_API_KEY (OPENAI_BASE_URL for another server);
or, without a key, MODEL=local:qwen2.5-coder-0.5b-instruct after `memgraph-plugin models pull`.
Memory is kept in a private Postgres, which starts by itself, or in that of MEMGRAPH_PLUGIN_DSN.
"""

import os

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from memgraph_plugin import MemoryContext, MemoryMiddleware, Settings, load_chat_model, open_store

model = load_chat_model(os.environ.get("MODEL", "openai:gpt-4.1-mini"))
ana = MemoryContext(user_id="ana")

with open_store(Settings()) as store:
    agent = create_agent(
        model,
        middleware=[MemoryMiddleware()],
        context_schema=MemoryContext,
        store=store,
        checkpointer=InMemorySaver(),
    )
    for thread, said in {
        "monday": "Hello! I live in Lisbon, and my sister is called Marta.",
        "friday": "In which city do I live?",
    }.items():
        result = agent.invoke(
            {"messages": [HumanMessage(said)]}, {"configurable": {"thread_id": thread}}, context=ana
        )
        print(f"[{thread}] Ana: {said}\n[{thread}] Agent: {result['messages'][-1].text}\n")

    print("What is remembered of her:")
    for hit in store.recall(("memories", "ana"), "", kinds=("core", "semantic", "episodic")):
        print("-", hit.memory.text)

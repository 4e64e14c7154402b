"""An agent that decides itself what to remember and when to look it up, with LangMem's two tools.

Needs: pip install "memgraph-plugin[openai,local]", and OPENAI_API_KEY (OPENAI_BASE_URL for another server);
or MODEL=local:..., a model that is good at calling tools (half a billion parameters are too few).
Memory is kept in a private Postgres, which starts by itself, or in that of MEMGRAPH_PLUGIN_DSN.
"""

import os

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage

from memgraph_plugin import MemoryContext, Settings, load_chat_model, memory_tools, open_store

PROMPT = (
    "Store what the user tells you with manage_memory; look things up with search_memory before you answer."
)

model = load_chat_model(os.environ.get("MODEL", "openai:gpt-4.1-mini"))

with open_store(Settings()) as store:
    agent = create_agent(
        model, memory_tools(), system_prompt=PROMPT, context_schema=MemoryContext, store=store
    )
    for said in ("Please remember that my train leaves at 7:45.", "When does my train leave?"):
        print("Carla:", said)
        result = agent.invoke({"messages": [HumanMessage(said)]}, context=MemoryContext(user_id="carla"))
        for message in result["messages"][1:]:
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                print(f"  calls {call['name']}({call['args']})")
            if message.text:
                print(f"  {message.type}: {message.text}")

    print("What is remembered of her:")
    for hit in store.recall(("memories", "carla"), ""):
        print("-", hit.memory.text)

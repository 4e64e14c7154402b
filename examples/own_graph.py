"""Memory in a graph of your own: the steps of memory, with one of yours between them.

    START -> retrieve -> generate -> decide -> apply -> END
                 |                     ^
                 +------> greet -------+            somebody of whom nothing is remembered

Needs: pip install "memgraph-plugin[openai,local]", and OPENAI_API_KEY (OPENAI_BASE_URL for another server);
or, without a key, MODEL=local:qwen2.5-coder-0.5b-instruct after `memgraph-plugin models pull`.
Memory is kept in a private Postgres, which starts by itself, or in that of MEMGRAPH_PLUGIN_DSN.
"""

import os
from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph

from memgraph_plugin import MemoryContext, MemoryState, Settings, open_store
from memgraph_plugin.nodes import apply, decide, generate, retrieve

MODEL = os.environ.get("MODEL", "openai:gpt-4.1-mini")


def is_known(state: MemoryState) -> Literal["generate", "greet"]:
    return "generate" if state.get("memories") else "greet"


def greet(state: MemoryState) -> MemoryState:
    return {"messages": [AIMessage(f"We have not met. I will remember: “{state['messages'][-1].text}”")]}


graph = StateGraph(MemoryState, context_schema=MemoryContext)
for node in (retrieve(k=5), generate(MODEL), decide(), apply()):
    graph.add_node(node)
graph.add_node(greet)
graph.add_edge(START, "retrieve")
graph.add_conditional_edges("retrieve", is_known)
graph.add_edge("generate", "decide")
graph.add_edge("greet", "decide")
graph.add_edge("decide", "apply")

with open_store(Settings()) as store:
    assistant = graph.compile(store=store)
    for said in ("Hello! I am Bruno, and I am allergic to nuts.", "What am I allergic to?"):
        result = assistant.invoke({"messages": [HumanMessage(said)]}, context=MemoryContext(user_id="bruno"))
        print(f"Bruno: {said}\nAssistant: {result['messages'][-1].text}")

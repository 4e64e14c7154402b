"""The store alone, without any chat model: versions, search, history, and LangGraph's own API.

Needs: pip install "memgraph-plugin[local]"; or, without torch, MEMGRAPH_PLUGIN_EMBEDDINGS=none.
Memory is kept in a private Postgres, which starts by itself, or in that of MEMGRAPH_PLUGIN_DSN.
Run it again: the idempotency keys see to it that nothing is written twice.
"""

from memgraph_plugin import Insert, Settings, Update, open_store

DORA = ("examples", "dora")

with open_store(Settings()) as store:
    told = [
        Insert(key="home", text="Dora lives in Turin.", kind="core"),
        Insert(key="pet", text="Dora has a dog called Argo."),
        Insert(text="Dora ran her first marathon in Milan.", kind="episodic"),
    ]
    receipts = store.apply(DORA, told, idempotency_key="told", actor="example")
    print(f"stored {len(receipts.applied)} memories, refused {len(receipts.rejected)}")

    moved = Update(key="home", text="Dora lives in Genoa.", mode="supersede", version=1, reason="she moved")
    store.apply(DORA, [moved], idempotency_key="moved", actor="example")

    print("\nrecall:")
    for hit in store.recall(DORA, "What is the name of her dog?", k=2):
        print(f"  {hit.score:5.2f}  {hit.memory.kind:9} {hit.memory.text}")

    print("\nhistory of her home:")
    for version in store.history(DORA, "home"):
        text = version.memory.text if version.memory else "(deleted)"
        print(f"  {version.version}  {version.mode or version.operation:9} {text} {version.reason}")

    print("\nas LangGraph's BaseStore:")
    store.put((*DORA, "settings"), "units", {"text": "metric units", "since": 2026})
    item = store.get((*DORA, "settings"), "units")
    print(" ", item.value if item else None)
    for found in store.search(DORA, query="Which units does she use?", filter={"since": {"$gte": 2026}}):
        print(" ", found.namespace, found.key)

"""The steps of a turn, one file a step: each makes a node that runs under `invoke` and `ainvoke` alike."""

from memgraph_plugin.nodes.apply import apply
from memgraph_plugin.nodes.decide import decide
from memgraph_plugin.nodes.generate import generate
from memgraph_plugin.nodes.recall_clues import recall_clues
from memgraph_plugin.nodes.retrieve import retrieve

__all__ = ["apply", "decide", "generate", "recall_clues", "retrieve"]

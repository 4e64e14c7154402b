"""The way of a message through memory, as a LangGraph graph.

    START -> retrieve -> recall_clues -> draft -> generate -> decide -> apply -> approve -> END

retrieve: what is remembered · recall_clues: what else is, where the question does not say what it needs
(only where somebody drafts clues) · draft: several tries at the answer, the best of which it leans on (only
with `selfmem`) · generate: the answer · decide: what changes in memory · apply: write it
down · approve: ask a human about the rest (only where there is `approve`). The answer has been streamed when
`decide` begins. With a `writer`, `submit` stands in place of the last three: what was said is stored, and
decided on later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memalpha.safety import SAFETY, Safety
from memgraph_plugin.nodes.apply import apply
from memgraph_plugin.nodes.approve import approve as approve_node
from memgraph_plugin.nodes.decide import Approval, PolicySource, decide
from memgraph_plugin.nodes.draft import reply_drafts
from memgraph_plugin.nodes.generate import ModelLike, generate, model_source
from memgraph_plugin.nodes.recall_clues import DrafterSource, Way, recall_clues
from memgraph_plugin.nodes.retrieve import retrieve
from memgraph_plugin.nodes.submit import MemoryWriter, check_attended, submit
from memgraph_plugin.selfmem_graph import Selfmem, build_draft_graph
from memgraph_plugin.state import MemoryContext, MemoryInput, MemoryOutput, MemoryState


def build_memory_graph(
    model: ModelLike = None,
    *,
    policy: PolicySource | Literal["rules", "model", "none"] = "rules",
    k: int = 10,
    token_budget: int = 1200,
    system_prompt: str | None = None,
    namespace: Sequence[str] | None = None,
    recall: bool = True,
    remember: bool = True,
    writer: MemoryWriter | None = None,
    clues: DrafterSource | None = None,
    selfmem: Selfmem | None = None,
    core: Sequence[CoreBlock] = (PROFILE,),
    approve: Approval = (),
    safety: Safety = SAFETY,
) -> StateGraph[MemoryState, MemoryContext, MemoryInput, MemoryOutput]:
    """A conversation that remembers. Compile it with a store of ours, and with a checkpointer for threads.

    Args:
        model: a chat model, its name, or who makes it; None answers by quoting what is remembered.
        policy: who decides what to remember: the rules, the same model, a policy of your own, or nobody
            ("none": turns are kept word for word, and that is all).
        k: memories recalled a turn, at most.
        token_budget: tokens of memory laid before the model, at most.
        system_prompt: in place of `ASSISTANT_PROMPT`; "" for none.
        namespace: where all runs of this graph keep their memories, whoever the user is; by default the run's
            context says (`MemoryContext`).
        recall: False leaves out `retrieve`.
        clues: who drafts clues for questions that do not say what they need, or who has such a drafter for a
            namespace; without one, `recall_clues` is left out.
        selfmem: how answers are drafted before they are given, `Selfmem()` for instance; without it, `draft`
            is left out.
        core: the blocks of the profile, each seen whole in every turn; by default one, "profile".
        approve: which operations a human is asked about, by interrupting the run after the rest is written:
            ("delete", "core") for instance; see `nodes/approve.py`. It needs a checkpointer.
        remember: False leaves out `decide` and `apply`. With both off, what is left is a call of the model.
        writer: decides with the same policy after the turn: `BackgroundWriter()` in this process, or a
            `QueueWriter`, whose workers have a policy of their own, and this graph's `core` and `safety`.
            Without one, the turn ends when memory is written.
        safety: what is done with instructions, secrets and personal data that would become memories.

    Raises:
        ConfigurationError: `policy` is "model", or there is `selfmem`, and no model; there are clues, but no
            recall; or `approve`, and a writer.
    """
    if policy == "model" and model is None:
        raise ConfigurationError('policy="model" needs a model: build_memory_graph(model, policy="model").')
    if clues is not None and not recall:
        raise ConfigurationError("Clues add to what is recalled: leave out recall=False, or the clues.")
    if selfmem is not None and model is None:
        raise ConfigurationError("selfmem= drafts with a model: build_memory_graph(model, selfmem=...).")
    check_attended(approve, writer)
    chat = model_source(model)
    steps: dict[str, Any] = {}
    if recall:
        steps["retrieve"] = retrieve(k=k, token_budget=token_budget, namespace=namespace)
    if clues is not None:
        way = Way(k=k, token_budget=token_budget)
        steps["recall_clues"] = recall_clues(clues, way=way, namespace=namespace)
    if selfmem is not None:
        steps["draft"] = build_draft_graph(reply_drafts(chat, system_prompt=system_prompt), selfmem).compile()
    steps["generate"] = generate(chat, system_prompt=system_prompt)
    if not remember:
        return _in_a_row(steps)
    if policy == "none":
        steps["apply"] = apply(namespace=namespace)
    elif writer is not None:
        decider = chosen_policy(policy, chat)
        steps["submit"] = submit(writer, decider, namespace=namespace, core=core, safety=safety)
    else:
        decider = chosen_policy(policy, chat)
        steps |= _writing(decider, namespace=namespace, core=core, approve=approve, safety=safety)
    return _in_a_row(steps)


def build_writing_graph(
    policy: PolicySource = None,
    *,
    namespace: Sequence[str] | None = None,
    core: Sequence[CoreBlock] = (PROFILE,),
    approve: Approval = (),
    safety: Safety = SAFETY,
) -> StateGraph[MemoryState, MemoryContext, MemoryInput, MemoryOutput]:
    """The end of a turn alone: its newest exchange is decided on, written, and asked about where `approve`
    says so. The arguments are those of `build_memory_graph`."""
    return _in_a_row(_writing(policy, namespace=namespace, core=core, approve=approve, safety=safety))


def _writing(
    policy: PolicySource,
    *,
    namespace: Sequence[str] | None,
    core: Sequence[CoreBlock],
    approve: Approval,
    safety: Safety,
) -> dict[str, Any]:
    steps: dict[str, Any] = {
        "decide": decide(policy, namespace=namespace, core=core, approve=approve, safety=safety),
        "apply": apply(namespace=namespace),
    }
    return {**steps, "approve": approve_node(namespace=namespace)} if approve else steps


def _in_a_row(steps: Mapping[str, Any]) -> StateGraph[MemoryState, MemoryContext, MemoryInput, MemoryOutput]:
    graph = StateGraph(
        MemoryState, context_schema=MemoryContext, input_schema=MemoryInput, output_schema=MemoryOutput
    )
    before = START
    for name, node in steps.items():
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph


def chosen_policy(
    policy: PolicySource | Literal["rules", "model"], load: Callable[[], BaseChatModel | None]
) -> PolicySource:
    """Who decides, as settings and callers name it: the rules, the model that is loaded, or a policy."""
    if policy == "rules":
        return None
    if policy != "model":
        return policy

    # Without a fallback of its own: the step falls back, and the log names who decided.
    return functools.cache(lambda: ChatModelPolicy(cast("BaseChatModel", load()), fallback=None))

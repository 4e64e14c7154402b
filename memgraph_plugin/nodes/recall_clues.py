"""The step that asks a memory model what to look for, where the question itself does not say it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, get_args

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import get_runtime

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memorag.clues import PLANS, Ask, ClueDrafter, Plan, Scenario, example, tidy
from memgraph_plugin.memorag.merge import WEIGHTS, Merge, Ranking, memorag, priors, supported, weighted_rrf
from memgraph_plugin.memorag.router import Route, route
from memgraph_plugin.nodes.retrieve import MOST_EXTRA, shown_turns
from memgraph_plugin.nodes.scope import Scope, scope_of
from memgraph_plugin.nodes.transcript import question_of, said_before
from memgraph_plugin.state import MemoryContext, MemoryState, hits_from, plain_clues, plain_hits
from memgraph_plugin.types import Clue, Hit, MemoryKind, Namespace

logger = logging.getLogger(__name__)

DrafterSource: TypeAlias = ClueDrafter | Callable[[Namespace], ClueDrafter | None]
"""A drafter, or who has one for a namespace (its memory model); None where there is none."""

FLOOR = 0.3
"""The cosine under which nothing that a guessed sentence finds is like it: it was made up. With MiniLM, 95 of
100 sentences of which half the words are right find more."""

MEMORAG_HITS = 3
"""Hits of each search in MemoRAG's own merge."""

TURNS = 4
"""Turns before the question that a drafter is shown."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search of the store: for what a clue says (all names at once), or among memories of some kinds."""

    text: str
    weight: float
    k: int
    clues: tuple[Clue, ...] = ()
    kinds: tuple[MemoryKind, ...] | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What clues made of a recall: the hits in the end, the clues that were searched with, and why."""

    hits: tuple[Hit, ...]
    route: str
    clues: tuple[Clue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How clues are used.

    Args:
        k: memories in the end, at most; not where all of something is asked for, nor for MemoRAG's own merge.
        token_budget: their tokens, at most; not for MemoRAG's own merge.
        merge: "rrf", by weighted ranks; "memorag", as in the paper: the best three of each search, all of
        them.
        scenario: take this one for every question, in place of the router's.
        floor: a guessed sentence that finds nothing of this cosine is dropped.

    Raises:
        ConfigurationError: there is no such merge or scenario.
    """

    k: int = 10
    token_budget: int = 1200
    merge: Merge = "rrf"
    scenario: Scenario | None = None
    floor: float = FLOOR

    def __post_init__(self) -> None:
        if self.merge not in get_args(Merge):
            raise ConfigurationError(f'merge is "rrf" or "memorag", not {self.merge!r}.')
        if self.scenario is not None and self.scenario not in PLANS:
            raise ConfigurationError(f"scenario is one of {', '.join(PLANS)}, not {self.scenario!r}.")


_Steps: TypeAlias = "Generator[Ask | list[Search] | Recalled, Any, None]"


def recall_clues(
    drafter: DrafterSource,
    *,
    way: Way | None = None,
    namespace: Sequence[str] | None = None,
    scoped: Callable[..., Scope] = scope_of,
) -> RunnableLambda[MemoryState, dict[str, Any]]:
    """A node that has clues drafted where the question needs them, and merges in what they find.

    A question that is plain, by its words and by what `retrieve` found, costs no model call; `route` says
    why, in either case. A drafter or a store that fails is logged, and the turn goes on with what there is.
    `scoped` reads the run's scope: whose memories these are, `documents_scope` for documents.

    Reads: messages, memories.
    Writes: memories, clues, route.
    Paper: MemoRAG (arXiv 2409.05591); departs from it: a router, scenarios, and ranks within a token budget.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError: as `retrieve`.
    """
    chosen = way or Way()

    def recall_now(state: MemoryState) -> dict[str, Any]:
        scope = scoped(get_runtime(MemoryContext), namespace=namespace)
        hits = hits_from(state.get("memories", []))
        return _plain(recall_by_clues(scope, state["messages"], hits, drafter, chosen))

    async def arecall_now(state: MemoryState) -> dict[str, Any]:
        scope = scoped(get_runtime(MemoryContext), namespace=namespace)
        hits = hits_from(state.get("memories", []))
        return _plain(await arecall_by_clues(scope, state["messages"], hits, drafter, chosen))

    return RunnableLambda(recall_now, arecall_now, name="recall_clues")


def recall_by_clues(
    scope: Scope, messages: Sequence[AnyMessage], hits: Sequence[Hit], drafter: DrafterSource, way: Way
) -> Recalled:
    """`hits`, which the last thing that the user said found, best first, and what clues find besides."""
    steps, ask = _steps(scope, messages, hits, way), _unheard(drafter, scope.namespace)
    step = next(steps)
    while not isinstance(step, Recalled):
        reply: Any
        try:
            reply = (
                ask.invoke(step)
                if isinstance(step, Ask)
                else [
                    scope.store.recall(scope.namespace, search.text, k=search.k, kinds=search.kinds)
                    for search in step
                ]
            )
        except GraphBubbleUp:  # a drafter that asks a human first
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model, hosted or local, trips over
            reply = error
        step = steps.send(reply)
    _tell(scope, step)
    return step


async def arecall_by_clues(
    scope: Scope, messages: Sequence[AnyMessage], hits: Sequence[Hit], drafter: DrafterSource, way: Way
) -> Recalled:
    """Async twin of `recall_by_clues`."""
    steps, ask = _steps(scope, messages, hits, way), _unheard(drafter, scope.namespace)
    step = next(steps)
    while not isinstance(step, Recalled):
        reply: Any
        try:
            reply = (
                await ask.ainvoke(step)
                if isinstance(step, Ask)
                else await asyncio.gather(
                    *(
                        scope.store.arecall(scope.namespace, search.text, k=search.k, kinds=search.kinds)
                        for search in step
                    )
                )
            )
        except GraphBubbleUp:
            raise
        except Exception as error:  # noqa: BLE001
            reply = error
        step = steps.send(reply)
    _tell(scope, step)
    return step


def _steps(scope: Scope, messages: Sequence[AnyMessage], hits: Sequence[Hit], way: Way) -> _Steps:
    """The step without models and stores: yields what to ask and to search, is sent the replies.

    At last it yields what is recalled. A reply that is an error ends the drafting.
    """
    core = [hit for hit in hits if hit.memory.kind == "core"]  # always recalled, and in no ranking
    hits = [hit for hit in hits if hit.memory.kind != "core"]
    way = replace(way, token_budget=max(way.token_budget - sum(hit.memory.tokens for hit in core), 0))
    query, turns = question_of(messages), said_before(messages, TURNS)
    decided = _routed(query, hits, len(turns), way, embedded=scope.store.embeddings is not None)
    if decided.scenario is None:
        yield Recalled((*hits, *core), str(decided))
        return
    plan, shown = PLANS[decided.scenario], shown_turns(scope, messages)
    merging = _Merging(plan, way, shown, scope.session, hits)
    told, outcome = example(decided.scenario, query).texts, ""
    if plan.kinds and way.merge == "rrf":
        outcome = merging.add((search := [merging.among(query, plan.kinds)]), (yield search))
    for number in range(1, plan.rounds + 1):
        found = tuple(hit.memory.text for hit in merging.hits())
        drafted = yield Ask(
            query=query,
            scenario=decided.scenario,
            limit=plan.limit,
            round=number,
            turns=turns,
            found=found,
            nearest=max((hit.cosine for hit in hits if hit.cosine is not None), default=None),
            now=scope.now,
        )
        if not isinstance(drafted, list):
            outcome = _failed(drafted)
            break
        said = [query, *told, *(clue.text for clue in merging.clues)]
        fresh = merging.searches(tidy(drafted, unlike=said, limit=plan.limit))
        if not fresh:
            break
        if outcome := merging.add(fresh, (yield fresh)):
            break
    if not merging.clues:
        outcome = outcome or "; no clue was worth a search"
    yield Recalled((*merging.hits(), *core), f"{decided}{outcome}", tuple(merging.clues))


class _Merging:
    """The rankings of one recall as they come in.

    Half of the places are the question's own: clues that are all wrong then do little harm, and those that
    help still find as much. Where there are few places, few hits of each search count, so that each has one.
    """

    def __init__(
        self, plan: Plan, way: Way, shown: frozenset[str], session: str | None, hits: Sequence[Hit]
    ) -> None:
        self._plan, self._way, self._shown, self._session = plan, way, shown, session
        self._rankings = [Ranking(hits, kept=way.k // 2)]
        self._depth = plan.depth if plan.spread else min(plan.depth, max(1, way.k // 3))
        if way.merge == "memorag":
            self._depth = MEMORAG_HITS
        self.clues: list[Clue] = []

    def among(self, query: str, kinds: tuple[MemoryKind, ...]) -> Search:
        return Search(query, WEIGHTS["question"], self._k, kinds=kinds)

    def searches(self, clues: Sequence[Clue]) -> list[Search]:
        """A search for each sentence, and one for all names; MemoRAG has no names."""
        names = tuple(clue for clue in clues if clue.kind == "entity" and self._way.merge == "rrf")
        sentences = [
            Search(clue.text, WEIGHTS[clue.kind], self._k, (clue,)) for clue in clues if clue.kind != "entity"
        ]
        together = Search(" ".join(name.text for name in names), WEIGHTS["entity"], self._k, names)
        return [*sentences, together] if names else sentences

    def add(self, searches: Sequence[Search], found: Sequence[Sequence[Hit]] | Exception) -> str:
        """Take in what the searches found; why nothing came of it, if so."""
        if isinstance(found, Exception):
            return _failed(found)
        dropped = 0
        for search, all_hits in zip(searches, found, strict=True):
            hits = [
                hit for hit in all_hits if hit.memory.key not in self._shown and hit.memory.kind != "core"
            ][: self._depth]
            if any(clue.kind == "span" for clue in search.clues) and not supported(hits, self._way.floor):
                dropped += 1
                continue
            self.clues += search.clues
            self._rankings.append(Ranking(hits, search.weight, self._plan.kept if search.clues else 0))
        if dropped:
            logger.info("%d guessed sentences found nothing like them and were dropped", dropped)
        return ""

    def hits(self) -> list[Hit]:
        """What is recalled so far; what the question found where no clue did anything."""
        if len(self._rankings) == 1:
            return list(self._rankings[0].hits)
        if self._way.merge == "memorag":
            return memorag(self._rankings, MEMORAG_HITS)
        return weighted_rrf(
            [*self._rankings, *(priors(self._rankings, self._session) if self._plan.recent else ())],
            token_budget=self._way.token_budget,
            k=None if self._plan.spread else self._way.k,
            depth=self._depth,
            spread=self._plan.spread,
        )

    @property
    def _k(self) -> int:
        return self._depth + min(len(self._shown), MOST_EXTRA)


def _routed(query: str, hits: Sequence[Hit], turns: int, way: Way, *, embedded: bool) -> Route:
    if way.scenario and (hits or not embedded):
        return Route(way.scenario, "chosen for every question")
    return route(query, hits, turns=turns, embedded=embedded)


def _unheard(source: DrafterSource, namespace: Namespace) -> Runnable[Ask, list[Clue] | None]:
    """The drafter, so called that what its model says is not streamed to whoever reads the answer."""

    def chosen() -> ClueDrafter | None:
        return source if isinstance(source, ClueDrafter) else source(namespace)

    def draft(ask: Ask) -> list[Clue] | None:
        drafter = chosen()
        return _checked(drafter.draft(ask)) if drafter else None

    async def adraft(ask: Ask) -> list[Clue] | None:
        drafter = await asyncio.to_thread(chosen)
        return _checked(await drafter.adraft(ask)) if drafter else None

    return RunnableLambda(draft, adraft, name="draft_clues").with_config(tags=[TAG_NOSTREAM])


def _checked(drafted: Any) -> list[Clue]:
    """What a drafter gave, where it is what a drafter gives."""
    if isinstance(drafted, list) and all(isinstance(clue, Clue) and clue.kind in WEIGHTS for clue in drafted):
        return drafted
    raise TypeError("a drafter gives a list of Clue, of the kinds span, question, entity and draft")


def _failed(error: Exception | None) -> str:
    if error is None:
        return "; there is no memory to draft from"
    # Only the class: an error's message may quote what is stored.
    logger.warning("Clues failed (%s); the turn goes on with what was found", type(error).__name__)
    return f"; clues failed ({type(error).__name__})"


def _plain(recalled: Recalled) -> dict[str, Any]:
    return {
        "memories": plain_hits(recalled.hits),
        "clues": plain_clues(recalled.clues),
        "route": recalled.route,
    }


def _tell(scope: Scope, recalled: Recalled) -> None:
    scope.emit(
        {
            "type": "memgraph_plugin.recall_clues",
            "route": recalled.route,
            "clues": dict(Counter(clue.kind for clue in recalled.clues)),
            "count": len(recalled.hits),
            "keys": [hit.memory.key for hit in recalled.hits],
            "tokens": sum(hit.memory.tokens for hit in recalled.hits),
        }
    )

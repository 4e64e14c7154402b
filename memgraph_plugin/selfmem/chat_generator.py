"""A generator that needs no training: any chat model, shown what was retrieved.

Cheng et al., "Lift Yourself Up" (arXiv 2305.02437, section 2.3): examples in context, nearest last. The paper
does not say how a draft of the model's own becomes a memory there. Either it is shown as an earlier draft for
the same source (a), or further examples are looked for by it, among targets instead of sources (b).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from memgraph_plugin.errors import ConfigurationError, ModelReplyError
from memgraph_plugin.selfmem import sentences
from memgraph_plugin.selfmem.protocols import Retriever
from memgraph_plugin.types import Candidate, Request

Job: TypeAlias = tuple[Request, int | None, int]
"""A request, the number of a candidate (None for the hypothesis), and the seed."""

_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "»": "«", "'": "'"}


class ChatModelGenerator:
    """Asks a chat model for each output in a call of its own, so that it need not know of several.

    A sample differs from the others by temperature, and by the order of the examples: in the first they stand
    nearest last, in every other at random. Models that have no temperature or seed to set are not given any.

    Args:
        model: any chat model.
        task: what is to be done, in words: "Translate the message from English to German."
        examples: how many are shown, at most.
        temperature: of candidates; hypotheses have 0.
        by_target: for (b), who finds examples by their targets (`BM25Retriever(..., side="target")`);
            None for (a).
        max_concurrency: calls at a time.

    Raises (when it writes):
        ModelReplyError: the model said nothing, in any of its replies for a request.
        Exception: the model's own.
    """

    def __init__(
        self,
        model: BaseChatModel,
        task: str,
        *,
        examples: int = 3,
        temperature: float = 0.8,
        by_target: Retriever | None = None,
        max_concurrency: int = 8,
    ) -> None:
        if examples < 0 or temperature < 0:
            raise ConfigurationError("examples and temperature are not negative")
        self._model = model
        self._task = task
        self._examples = examples
        self._temperature = temperature
        self._by_target = by_target
        self._config: RunnableConfig = {"max_concurrency": max_concurrency}
        self._calls: RunnableLambda[Job, Candidate | None] = RunnableLambda(self._call, self._acall)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {
            "generator": "chat",
            "model": str(self._model._get_ls_params().get("ls_model_name") or type(self._model).__name__),
            "task": hashlib.sha256(self._task.encode()).hexdigest(),
            "examples": str(self._examples),
            "temperature": str(self._temperature),
            "drafts": "searched" if self._by_target else "shown",
        }

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        """At most `n` outputs for each request, all different, in the order in which they were asked for."""
        return self._pools(requests, n, self._calls.batch(_jobs(requests, n, seed), self._config))

    async def acandidates(
        self, requests: Sequence[Request], n: int, *, seed: int = 0
    ) -> list[list[Candidate]]:
        """Async twin of `candidates`."""
        return self._pools(requests, n, await self._calls.abatch(_jobs(requests, n, seed), self._config))

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        """The one output for each request: at temperature 0, examples nearest last."""
        said = self._calls.batch([(request, None, seed) for request in requests], self._config)
        return [pool[0] for pool in self._pools(requests, 1, said)]

    async def ahypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        """Async twin of `hypotheses`."""
        said = await self._calls.abatch([(request, None, seed) for request in requests], self._config)
        return [pool[0] for pool in self._pools(requests, 1, said)]

    async def ahypothesis(self, request: Request, *, seed: int = 0) -> Candidate:
        """The one output for a request."""
        return (await self.ahypotheses([request], seed=seed))[0]

    def sample(self, request: Request, number: int, *, seed: int = 0) -> Candidate | None:
        """The candidate of this number, from 0; None where the model said nothing."""
        return self._call((request, number, seed))

    async def asample(self, request: Request, number: int, *, seed: int = 0) -> Candidate | None:
        """Async twin of `sample`."""
        return await self._acall((request, number, seed))

    def _call(self, job: Job) -> Candidate | None:
        return _candidate(self._model.invoke(self._prompt(job), **self._options(job)), job[0])

    async def _acall(self, job: Job) -> Candidate | None:
        prompt = await asyncio.to_thread(self._prompt, job) if self._by_target else self._prompt(job)
        return _candidate(await self._model.ainvoke(prompt, **self._options(job)), job[0])

    def _options(self, job: Job) -> dict[str, Any]:
        """What makes a sample differ, where the model has a setting for it."""
        _, number, seed = job
        wanted = {
            "temperature": 0.0 if number is None else self._temperature,
            "seed": (seed + (number or 0)) % 2**31,
        }
        return {name: value for name, value in wanted.items() if name in type(self._model).model_fields}

    def _prompt(self, job: Job) -> list[BaseMessage]:
        request, number, seed = job
        draft = request.memory if request.round else ""
        shown = list(request.examples[: self._examples])
        if draft and self._by_target:
            shown = self._by_target.retrieve([draft], self._examples)[0]
            draft = ""
        shown.reverse()
        if number:
            random.Random(f"{seed} {number}").shuffle(shown)  # noqa: S311 - to vary what is said
        turns: list[BaseMessage] = [SystemMessage(sentences.render_selfmem_prompt(self._task))]
        for each in shown:
            turns += [HumanMessage(each.source), AIMessage(each.target)]
        return [*turns, HumanMessage(sentences.render_selfmem_request(request.source, draft))]

    def _pools(
        self, requests: Sequence[Request], n: int, said: Sequence[Candidate | None]
    ) -> list[list[Candidate]]:
        pools = []
        for place in range(len(requests)):
            texts = {each.text: each for each in said[place * n : (place + 1) * n] if each}
            if not texts:
                raise ModelReplyError("the model said nothing for an input, in any of its replies", "")
            pools.append(list(texts.values()))
        return pools


def _jobs(requests: Sequence[Request], n: int, seed: int) -> list[Job]:
    if n < 1:
        raise ConfigurationError(f"n={n}: at least one candidate must be asked for")
    return [(request, number, seed) for request in requests for number in range(n)]


def _candidate(message: BaseMessage, request: Request) -> Candidate | None:
    """The reply without space and quotation marks around it, unless the source has such marks, too."""
    text = str(message.text).strip()
    for opening, closing in _QUOTES.items():
        inside = text[1:-1]
        quoted = text[:1] == opening and text[1:].endswith(closing)
        if quoted and request.source[:1] not in _QUOTES and not {opening, closing} & set(inside):
            text = inside.strip()
            break
    return Candidate(text) if text else None

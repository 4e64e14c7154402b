"""A policy that `train_policy` made, at work: asked and held to the schema as it was trained.

What it is shown was in training what the step `decide` shows by default: the block `core:profile`, 20 similar
memories, the newest 5. Other blocks, more memories than a generated person has (a dozen), and turns longer
than theirs it has never seen.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from memgraph_plugin.errors import ConfigurationError, MissingExtraError, ModelReplyError
from memgraph_plugin.memalpha.environment import request
from memgraph_plugin.memalpha.operations import Handles, parse_operations, read_json
from memgraph_plugin.memalpha.policies import Decision, Policy, decision_of
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.safety import UNCHECKED
from memgraph_plugin.memalpha.tools import shown_schema
from memgraph_plugin.memalpha.validation import LIMITS, Limits, validate
from memgraph_plugin.models.rollouts import rollouts
from memgraph_plugin.models.weights import Weights, load_weights
from memgraph_plugin.types import Memory, NoOp, Operation, Turn

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPolicy:
    """Decides by a trained adapter, and by `fallback` where its reply cannot be read; proposes what
    `validate` takes. `prompt` and `ask` are those of its training."""

    weights: Weights
    prompt: str
    ask: str
    max_tokens: int
    name: str = "trained"
    limits: Limits = LIMITS
    fallback: Policy = field(default_factory=RulePolicy)

    @classmethod
    def from_folder(cls, folder: Path) -> TrainedPolicy:
        """What `memgraph-plugin train memalpha` wrote.

        Raises:
            ConfigurationError: it is no such folder, or its base model is not where it was.
            MissingExtraError: the extra `train` is not installed, which has peft.
        """
        try:
            card = json.loads((folder / "card.json").read_text("utf-8"))
            prompt, ask, most = str(card["prompt"]), str(card["ask"]), int(card["max_tokens"])
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(f"{folder} has no card.json of a trained policy: {error!r}") from error
        try:
            import peft  # noqa: F401 - transformers reads the adapter with it
        except ImportError as error:
            raise MissingExtraError("train", "A trained memory policy") from error
        return cls(weights=load_weights(str(folder)), prompt=prompt, ask=ask, max_tokens=most)

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list(self.decide(turns, memories).operations)

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list((await self.adecide(turns, memories)).operations)

    def decide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """`propose`, with what the model said, what was refused, and who decided where it could not be read.

        Where everything was refused, nothing is done; the refusals say why.
        """
        handles = Handles.assign(turns, memories)
        reply = self.reply(handles)
        try:
            parsed = parse_operations(read_json(reply), handles, limits=self.limits)
        except ModelReplyError as error:
            _LOG.warning(
                "The trained policy's reply is of no use (%s); %s decides.", error, self.fallback.name
            )
            instead = decision_of(self.fallback, turns, memories)
            return replace(instead, raw=(reply, *instead.raw), error=error)
        checked = validate(parsed.operations, turns, memories, limits=self.limits, safety=UNCHECKED)
        rejected = (*parsed.rejected, *checked.rejected)
        if rejected:
            # Only the codes: a reason may quote what was said.
            _LOG.info("Refused of a reply: %s", dict(Counter(receipt.code for receipt in rejected)))
        return Decision(checked.accepted or (NoOp(),), self.name, rejected, (reply,))

    async def adecide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """Async twin of `decide`, in a thread."""
        return await asyncio.to_thread(self.decide, turns, memories)

    def reply(self, handles: Handles) -> str:
        """What the model says, greedily."""
        tokenizer = self.weights.tokenizer
        chat = request(handles, self.limits, self.prompt, self.ask)
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        schema = shown_schema(handles, self.limits)
        made = rollouts(self.weights, prompt, 1, schema, max_tokens=self.max_tokens)[0]
        return str(tokenizer.decode(made.tokens, skip_special_tokens=True))

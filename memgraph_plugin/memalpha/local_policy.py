"""Mem-alpha's decision by a local model, whose reply is held to what can be applied while it is decoded."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel

from memgraph_plugin import prompts
from memgraph_plugin.memalpha.chat_policy import TIMEOUT, ChatModelPolicy, ReplyingModel
from memgraph_plugin.memalpha.operations import Handles
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.tools import shown_schema
from memgraph_plugin.memalpha.validation import Limits

LOCAL_LIMITS = Limits(operations=8, characters=240)
"""A small model that loops is stopped by them: they are part of the grammar that it is held to."""

MAX_TOKENS = 1_024
"""Tokens of a reply: what `LOCAL_LIMITS` leaves room for in all but the worst case."""


class LocalPolicy(ChatModelPolicy):
    """A `ChatModelPolicy` of a model that can be held to a JSON schema: `load_chat_model("local:...")`.

    The schema is made for each call: a handle that was not shown, an operation without its fields, prose and
    text without an end cannot be decoded. What is decoded is validated all the same; what `max_tokens` cuts,
    and what breaks the other rules, is sent back once, and then the `fallback` decides.
    """

    name = "local"

    def __init__(
        self,
        model: BaseChatModel,
        *,
        fallback: Policy | None = RulePolicy(),  # noqa: B008 - frozen
        limits: Limits = LOCAL_LIMITS,
        prompt: str = prompts.DECIDE_PROMPT,
        timeout: float | None = TIMEOUT,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__(model, fallback=fallback, limits=limits, prompt=prompt, timeout=timeout)
        self._local = model
        self._max_tokens = max_tokens
        self._ask = prompts.render_decide_by_json()

    def _bound(self, handles: Handles) -> tuple[ReplyingModel, ReplyingModel]:
        schema = shown_schema(handles, self._limits)
        model = self._local.bind(json_schema=schema, max_tokens=self._max_tokens)
        return model, model

"""What several commands share: options, and the settings, the console and the namespace they work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from memgraph_plugin.models.weights import Weights
    from memgraph_plugin.settings import Settings
    from memgraph_plugin.types import Namespace

User = Annotated[str, typer.Option("--user", help="Whose memory.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help='"extractive" (quotes memories), "local:NAME" or "openai:NAME", for example.'
    ),
]


def settings(**changes: Any) -> Settings:
    """The settings; what does not fit is one clear line."""
    from pydantic import ValidationError

    from memgraph_plugin.settings import Settings

    try:
        return Settings().model_copy(update=changes)
    except ValidationError as error:
        wrong = (f"MEMGRAPH_PLUGIN_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise ConfigurationError("; ".join(wrong)) from error


def console(*, err: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=err, highlight=False)


def namespace(user: str) -> Namespace:
    from memgraph_plugin.nodes.scope import namespace_of
    from memgraph_plugin.state import MemoryContext

    return namespace_of(MemoryContext(user_id=user), {})


def local_weights(spec: str) -> Weights:
    """The weights of a local model that is named as everywhere, "local:<name or path>".

    Raises:
        ConfigurationError: it is no local model, or it is not here.
        MissingExtraError: the extra `local` is not installed.
    """
    from memgraph_plugin.models.chat import load_chat_model
    from memgraph_plugin.models.local import LocalChatModel

    chat = load_chat_model(spec, cache_dir=settings().cache_dir) if spec.startswith("local:") else None
    if not isinstance(chat, LocalChatModel):
        raise ConfigurationError(f'{spec!r} is no local model: a memory needs "local:<name or path>".')
    return chat.weights()


def ratios(text: str, window: int) -> tuple[int, ...]:
    """The whole numbers of a list with commas, each of which divides a window.

    Raises:
        ConfigurationError: one does not.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--ratios {text}: whole numbers with commas between them") from error
    if wrong := [ratio for ratio in found if ratio < 1 or window % ratio]:
        raise ConfigurationError(f"--ratios: {wrong[0]} does not divide a window of {window} tokens")
    return found

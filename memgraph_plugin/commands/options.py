"""What several commands share: options, and the settings, the console and the namespace they work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

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

"""Talking with an assistant that remembers."""

from __future__ import annotations

from typing import Annotated

import typer

from memgraph_plugin.commands import options


def demo(
    model: options.Model = None,
    no_pull: Annotated[
        bool, typer.Option("--no-pull", help="Get no model; if it is not here, quote memories.")
    ] = False,
) -> None:
    """Watch an assistant remember: told things in one process, asked in another.

    Example: memgraph-plugin demo --model extractive
    """
    from memgraph_plugin import demo

    raise typer.Exit(demo.run(options.settings(), options.console(), model=model, pull=not no_pull))


def demo_session(user: options.User, session: str, model: options.Model = None) -> None:
    """One session of the demo: a question a line in, what happens as JSON lines out."""
    from memgraph_plugin import demo

    demo.answer_lines(options.settings(), user=user, session=session, model=model)


def chat(
    user: options.User,
    model: options.Model = None,
    session: Annotated[str | None, typer.Option("--session", help="A name for this conversation.")] = None,
) -> None:
    """Talk with an assistant that remembers you the next time.

    Example: memgraph-plugin chat --user ana --model local:qwen2.5-coder-0.5b-instruct
    """
    from memgraph_plugin import chat

    chat.talk(options.settings(), options.console(), user=user, session=session, model=model)

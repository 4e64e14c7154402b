"""Documents: memorizing them, and asking about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import (
    ConfigurationError,
    MemgraphPluginError,
    ModelUnavailable,
)

if TYPE_CHECKING:
    from rich.console import Console

    from memgraph_plugin.nodes.memorize import Progress
    from memgraph_plugin.settings import Settings
    from memgraph_plugin.state import Plain
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.types import Document, Namespace

    Keep: TypeAlias = Callable[[MemoryStore, Namespace, Document, Progress], str]
    """Keeps what a model remembers of a document; what to tell of it."""


def memorize(
    path: Annotated[Path, typer.Argument(help="A file (text, markdown, PDF), or a folder of them.")],
    user: options.User,
    model: Annotated[
        str,
        typer.Option(
            "--model", help='"local:NAME" keeps a compressed memory, too; "none" what can be searched.'
        ),
    ] = "none",
    mode: Annotated[
        str,
        typer.Option(
            "--mode", help='"compressed", or "gist": told in short by any chat model, piece by piece.'
        ),
    ] = "compressed",
    ratio: Annotated[
        int, typer.Option("--ratio", min=1, help="Tokens read for each that a compressed memory keeps.")
    ] = 4,
    window: Annotated[
        int | None,
        typer.Option(
            "--window", min=1, help="Tokens that the model reads at a time: 1,024; 4,096 for gists."
        ),
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option("--tokens", help="Trained memory tokens of the model, to read with.")
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete what was memorized of PATH; it may be gone itself.")
    ] = False,
) -> None:
    """Memorize documents, so that `ask` can find and cite them. Running it again does only what is missing.

    A changed document replaces its own passages; one that was interrupted goes on where it stopped. For a
    compressed memory a local model reads all of it, which takes minutes a hundred pages without a GPU; for
    gists the model, hosted or local, is sent all of it once.

    Example: memgraph-plugin memorize handbook/ --user ana --model local:qwen2.5-coder-0.5b-instruct
    """
    from memgraph_plugin.nodes.scope import documents_in
    from memgraph_plugin.store.open import open_store

    namespace, settings = documents_in(options.namespace(user)), options.settings()
    keep = None
    if mode not in ("compressed", "gist"):
        raise ConfigurationError(f'--mode is "compressed" or "gist", not {mode!r}')
    if mode == "gist" and not forget:
        keep = _by_gists(settings, model, window)
    elif model != "none" and not forget:
        keep = _compressed(settings, model, window, ratio, tokens)
    with open_store(settings) as store:
        if forget:
            _forget(store, namespace, path)
            return
        try:
            refused = _memorize(store, namespace, path, keep)
        except KeyboardInterrupt:
            typer.echo("Stopped. The same command goes on from here.", err=True)
            raise typer.Exit(130) from None
    if refused:
        raise typer.Exit(1)


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    user: options.User,
    model: options.Model = None,
    clues: Annotated[
        str | None,
        typer.Option(
            "--clues", help='Who reads gists, if not the model that made them; "none" for no clues.'
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Passages to answer from, at most.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask about memorized documents: an answer from their passages alone, and which of them it cites.

    Without a model it quotes the passages that bear on the question.

    Example: memgraph-plugin ask "How long is the notice period?" --user ana
    """
    from memgraph_plugin.chat import chosen_model
    from memgraph_plugin.documents_graph import build_documents_graph
    from memgraph_plugin.drafting import drafters, load_compressor, load_gist_model
    from memgraph_plugin.nodes.scope import documents_in
    from memgraph_plugin.state import MemoryContext
    from memgraph_plugin.store.open import open_store

    settings, namespace = options.settings(), documents_in(options.namespace(user))
    if not question.strip():
        raise ConfigurationError("the question is empty")
    chat = chosen_model(settings, model)
    drafting = None
    if clues != "none":
        drafting = drafters(
            partial(load_compressor, cache_dir=settings.cache_dir),
            partial(load_gist_model, name=clues, base_url=settings.base_url, cache_dir=settings.cache_dir),
        )
    with open_store(settings) as store:
        if not store.count(namespace):
            raise ConfigurationError(
                f"no documents of {user} are memorized yet: memgraph-plugin memorize PATH --user {user}"
            )
        graph: Any = build_documents_graph(chat, clues=drafting, k=k).compile(store=store)
        asked = {"messages": [{"role": "user", "content": question}]}
        try:
            events = graph.stream(
                asked, context=MemoryContext(user_id=user), stream_mode=["messages", "updates"]
            )
            done = _show(events, options.console(), silent=as_json)
        except (MemgraphPluginError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise ModelUnavailable(f"no answer: {type(error).__name__}: {error}") from error
    if as_json:
        cited = {"answer": done["messages"][-1].text, "citations": done["citations"]}
        typer.echo(json.dumps(cited, ensure_ascii=False, indent=2))
    else:
        _show_sources(done, options.console())


def _compressed(settings: Settings, model: str, window: int | None, ratio: int, tokens: Path | None) -> Keep:
    """Keeps a document's compressed memory, and says what it is."""
    from memgraph_plugin.drafting import load_compressor
    from memgraph_plugin.memorag.spec import MemorySpec
    from memgraph_plugin.memorizing import compress

    spec = MemorySpec(window=window or 1024, ratio=ratio, mode="beacon" if tokens else "evict")
    about = {
        "memory_model": model,
        "memory_tokens": str(tokens.resolve()) if tokens else "",
        "spec": asdict(spec),
    }
    compressor = load_compressor(about, cache_dir=settings.cache_dir)

    def keep(store: MemoryStore, namespace: Namespace, document: Document, progress: Progress) -> str:
        kept = compress(store, namespace, document, compressor, about=about, progress=progress).header
        return f"{kept['seen']:,} tokens in a memory of {kept['entries']:,} entries"

    return keep


def _by_gists(settings: Settings, model: str, window: int | None) -> Keep:
    """Keeps the gists of a document, and says how many."""
    from memgraph_plugin.memorag.gist import PIECE
    from memgraph_plugin.memorizing import keep_gists
    from memgraph_plugin.models.chat import load_chat_model

    if model == "none":
        raise ConfigurationError(
            'gists need a chat model: --model "openai:NAME" or "local:NAME", for example'
        )
    chat = load_chat_model(model, base_url=settings.base_url, cache_dir=settings.cache_dir)
    about, tokens = {"memory_model": model}, window or PIECE

    def keep(store: MemoryStore, namespace: Namespace, document: Document, progress: Progress) -> str:
        try:
            kept = keep_gists(store, namespace, document, chat, about=about, tokens=tokens, progress=progress)
            return f"{kept.windows:,} gists"
        except MemgraphPluginError:
            raise
        except Exception as error:
            raise ModelUnavailable(
                f"no gist: {type(error).__name__}: {error}; the same command goes on from here"
            ) from error

    return keep


def _memorize(store: MemoryStore, namespace: Namespace, path: Path, keep: Keep | None) -> list[Path]:
    """Memorize what there is, telling of each document; the files that were refused."""
    from memgraph_plugin.documents import document_id, read_documents
    from memgraph_plugin.memorizing import within
    from memgraph_plugin.nodes.memorize import held_passages

    refused: list[Path] = []

    def refuse(file: Path, error: MemgraphPluginError) -> None:
        refused.append(file)
        typer.echo(f"memgraph-plugin: {error}", err=True)

    held = held_passages(store, namespace)
    for document in read_documents(path, refuse):
        try:
            told = _take(store, namespace, document, held.pop(document.id, set()), keep)
        except ConfigurationError as error:
            refuse(Path(document.id), error)
        else:
            typer.echo(f"{document.name}: {told}")
    kept = {document_id(file) for file in refused}
    for gone in sorted(within(held, document_id(path)) - kept):
        typer.echo(f"{gone} is gone; to forget it, too: memgraph-plugin memorize --forget {gone!r}", err=True)
    return refused


def _take(
    store: MemoryStore,
    namespace: Namespace,
    document: Document,
    held: set[str],
    keep: Keep | None,
) -> str:
    """Memorize one document; what to tell of it."""
    from memgraph_plugin.integrations.llama_index import passages_of
    from memgraph_plugin.nodes.memorize import write_passages
    from memgraph_plugin.terminal import counting

    bars, passages = options.console(err=True), passages_of(document)
    with counting(bars, f"{document.name}, passages", transient=True) as progress:
        written = write_passages(store, namespace, passages, held, progress)
    told = f"{written.passages:,} passages, {written.new:,} new, {written.gone:,} gone"
    if keep is None:
        return told
    with counting(bars, f"{document.name}, read by the model", transient=True) as progress:
        return f"{told}; {keep(store, namespace, document, progress)}"


def _forget(store: MemoryStore, namespace: Namespace, path: Path) -> None:
    from memgraph_plugin import memorizing
    from memgraph_plugin.documents import document_id

    forgotten = memorizing.forget_documents(store, namespace, document_id(path))
    if not forgotten:
        raise ConfigurationError(f"nothing is memorized of {path}")
    for document in forgotten:
        typer.echo(f"{document} is forgotten")


def _show(events: Any, console: Console, *, silent: bool) -> Plain:
    """Print an answer as it comes; what the steps gave in the end."""
    from langchain_core.messages import AIMessageChunk

    from memgraph_plugin.terminal import printable

    streamed = False
    done: Plain = {}
    for mode, event in events:
        if mode == "updates":
            for update in event.values():
                done |= update
            continue
        chunk, metadata = event
        answers = metadata.get("langgraph_node") == "answer" and isinstance(chunk, AIMessageChunk)
        if answers and not silent:
            streamed = True
            console.out(printable(chunk.text), end="", highlight=False)
    if not silent:
        console.out("" if streamed else printable(done["messages"][-1].text), highlight=False)
    return done


def _show_sources(done: Plain, console: Console) -> None:
    """Print the passages that an answer cites, or which ones it was given."""
    from rich.text import Text

    from memgraph_plugin.state import hits_from
    from memgraph_plugin.terminal import printable

    sources = dict.fromkeys(printable(hit.memory.source) for hit in hits_from(done["memories"]))
    if not done["citations"] and sources:
        given = f"\nThe answer cites no passage. It was given: {'; '.join(sources)}"
        console.print(Text(given, style="dim"))
    for cited in done["citations"]:
        console.print(Text(f"\n[{cited['number']}] {printable(cited['source'])}", style="bold"))
        console.print(Text(printable(cited["text"]), style="dim"))

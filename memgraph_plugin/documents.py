"""Documents from files: text of any kind (markdown is text, too) and PDF; a file, or a folder of them."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.nodes.transcript import storable
from memgraph_plugin.types import Document

PDF = b"%PDF-"

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file begins with that says its encoding; the longer ones first."""


def read_documents(
    path: Path, refused: Callable[[Path, ConfigurationError], None] | None = None
) -> Iterator[Document]:
    """The document of a file; of a folder those of all files in it and below, by name, hidden ones left out.

    Args:
        path: a file, or a folder.
        refused: told of each file in a folder that cannot be read; without it, the first ends the reading.

    Raises:
        ConfigurationError: there is no such file, it is empty or binary, or a folder has no files.
        MissingExtraError: a PDF, and the extra `documents` is not installed.
    """
    if not path.is_dir():
        yield read_document(path)
        return
    files = files_in(path)
    if not files:
        raise ConfigurationError(f"{path} has no files (hidden ones are left out)")
    for file in files:
        try:
            yield read_document(file)
        except MissingExtraError:
            raise
        except ConfigurationError as error:
            if refused is None:
                raise
            refused(file, error)


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of those below, in order, without hidden ones."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def document_id(path: Path) -> str:
    """By what name the document of a file is known: its path from the root, whoever asks from where."""
    return _name(str(path.expanduser().resolve()))


def _name(name: str) -> str:
    """A file's name as text; bytes of it that are no UTF-8 are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_document(path: Path) -> Document:
    """The document of one file.

    Raises:
        ConfigurationError: there is no such file, or it is empty, binary, broken or in an unknown encoding.
        MissingExtraError: a PDF, and the extra `documents` is not installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    paged = content.startswith(PDF)
    pages = _pdf_pages(path) if paged else (_text(path, content),)
    if not any(page.strip() for page in pages):
        why = "it holds pictures of pages, perhaps; OCR makes text of them" if paged else "the file is empty"
        raise ConfigurationError(f"{path} has no text: {why}")
    return Document(id=document_id(path), name=_name(path.name), pages=pages, paged=paged)


def _text(path: Path, content: bytes) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        binary = b"\0" in content
        what = "binary" if binary else f"neither UTF-8 nor PDF (byte {error.start:,})"
        advice = "" if binary else f"; convert it: iconv -f latin1 -t utf8 {path.name!r}"
        raise ConfigurationError(f"{path} is {what}{advice}") from error
    if "\0" in text:
        raise ConfigurationError(f"{path} is binary")
    return _clean(text)


def _pdf_pages(path: Path) -> tuple[str, ...]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, PyPdfError
    except ImportError as error:
        raise MissingExtraError("documents", "Reading a PDF") from error
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise ConfigurationError(f"{path} is locked by a password; save it without one")
        return tuple(_clean(page.extract_text()) for page in reader.pages)
    except DependencyError as error:
        raise ConfigurationError(f"{path} is encrypted: {error}; save it without encryption") from error
    except (PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # A broken file fails anywhere in pypdf.
        raise ConfigurationError(f"{path} is no whole PDF: {error}") from error


def _clean(text: str) -> str:
    """One form for each end of a line, and nothing that a database cannot keep."""
    return storable(text.replace("\r\n", "\n").replace("\r", "\n"))

"""Reading documents: text of any kind, PDF, folders, and what is neither."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from memgraph_plugin.documents import read_document, read_documents
from memgraph_plugin.errors import ConfigurationError
from tests.files import HANDBOOK, write_pdf


def test_text_is_read_whole_with_one_form_of_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(HANDBOOK.replace("\n", "\r\n").encode())
    document = read_document(tmp_path / "a.md")
    assert document.text == HANDBOOK
    assert (document.name, document.id, document.paged) == ("a.md", str(tmp_path / "a.md"), False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_says_its_encoding_by_its_first_bytes(tmp_path: Path, encoding: str) -> None:
    text = "Ærøskøbing, 東京, 𝄞"
    (tmp_path / "a.txt").write_text(text, encoding=encoding)
    assert read_document(tmp_path / "a.txt").text == text


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    document = read_document(
        write_pdf(tmp_path / "a.pdf", ["The fee is (forty) crowns.", "", "Dogs are welcome."])
    )
    assert document.paged
    assert [page.strip() for page in document.pages] == [
        "The fee is (forty) crowns.",
        "",
        "Dogs are welcome.",
    ]


def test_a_pdf_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    assert read_document(write_pdf(tmp_path / "scan.dat", ["Hello."])).paged


def test_a_folder_is_read_in_order_without_what_is_hidden(tmp_path: Path) -> None:
    home = tmp_path / ".home" / "papers"
    for name in ("b.txt", "a/c.md", ".git/config", "a/.hidden"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    assert [document.text for document in read_documents(home)] == ["a/c.md", "b.txt"]


def test_a_folder_tells_of_each_file_that_cannot_be_read_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "b.txt").write_text("Hello.")
    (tmp_path / "c.txt").write_text(" \n")
    refused: dict[str, str] = {}
    read = list(read_documents(tmp_path, lambda path, error: refused.update({path.name: str(error)})))
    assert [document.name for document in read] == ["b.txt"]
    assert refused.keys() == {"a.bin", "c.txt"}
    with pytest.raises(ConfigurationError, match=r"a\.bin is binary"):
        list(read_documents(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\t ", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is binary"),
        (b"a\0b", "is binary"),
        ("Æbler på bordet".encode("latin-1"), "iconv"),
        (b"%PDF-1.7\nnonsense", "no whole PDF"),
    ],
)
def test_what_is_no_text_is_refused_with_advice(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        read_document(tmp_path / "a")


def test_a_pdf_of_pictures_alone_says_what_would_help(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="OCR"):
        read_document(write_pdf(tmp_path / "scan.pdf", ["", ""]))


def test_a_truncated_pdf_is_refused_or_read_but_never_fails_otherwise(tmp_path: Path) -> None:
    whole = write_pdf(tmp_path / "a.pdf", ["One.", "Two."]).read_bytes()
    for length in range(5, len(whole), 97):
        (tmp_path / "cut.pdf").write_bytes(whole[:length])
        with suppress(ConfigurationError):
            read_document(tmp_path / "cut.pdf")


def test_files_that_are_not_there_or_not_ours_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.txt cannot be read: No such file"):
        list(read_documents(tmp_path / "none.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="has no files"):
        list(read_documents(tmp_path / "empty"))


def test_a_name_that_is_no_utf_8_can_be_kept(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe6bler.txt"))
    path.write_text("Hello.")
    assert read_document(path).name == "\\xe6bler.txt"

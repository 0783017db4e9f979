"""The documents: they render without a warning, and what they name exists."""

from __future__ import annotations

import io
import pathlib
import re

import pytest
import typer
from docutils import nodes
from docutils.core import publish_doctree
from typer.main import get_command

from xenonode.cli.main import app

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = ("README.rst", "ARCHITECTURE.rst", "DECISIONS.rst", "CHANGELOG.rst")
WARNING = 2
_WORD = re.compile(r"[a-z]+\Z")


def rendered(name: str) -> tuple[nodes.document, str]:
    """A document, and every complaint about it."""
    complaints = io.StringIO()
    settings = {"report_level": WARNING, "halt_level": 5, "warning_stream": complaints, "syntax_highlight": "none"}
    text = (ROOT / name).read_text(encoding="utf-8")
    return publish_doctree(text, source_path=name, settings_overrides=settings), complaints.getvalue()


def command_words(text: str) -> set[tuple[str, ...]]:
    """Every `xenonode WORD ...` in a text: the lower-case words that follow the program's name."""
    found = set()
    for line in re.findall(r"\bxenonode ((?:[a-z]+\b[ ]?){1,2})", text):
        words = [word for word in line.split() if _WORD.match(word)]
        found.add(tuple(words))
    return found


def exists(words: tuple[str, ...]) -> bool:
    """Whether the words begin with a command: a group's must name one of its members."""
    here = get_command(app)
    for word in words:
        members = getattr(here, "commands", None)
        if members is None:
            return True  # a command's own arguments follow
        if word not in members:
            return False
        here = members[word]
    return True


def literal_texts(document: nodes.document) -> list[str]:
    """What is set as code: blocks and inline."""
    return [node.astext() for kind in (nodes.literal_block, nodes.literal) for node in document.findall(kind)]


def file_links(document: nodes.document) -> list[str]:
    """Every link that is a path in this repository."""
    links = [str(node["refuri"]) for node in document.findall(nodes.reference) if "refuri" in node]
    return [link for link in links if "://" not in link and not link.startswith("mailto:")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_renders_without_a_warning(name: str) -> None:
    document, complaints = rendered(name)
    assert complaints == ""
    assert len(document.astext()) > 500  # it says something


def test_every_command_that_the_readme_names_exists() -> None:
    document, _ = rendered("README.rst")
    named = command_words("\n".join(literal_texts(document)))
    assert ("session", "create") in named
    assert [words for words in sorted(named) if not exists(words)] == []


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    root = get_command(app)
    commands = [
        f"{name} {inner}".strip()
        for name, member in root.commands.items()  # type: ignore[attr-defined]  # the program is a group
        for inner in getattr(member, "commands", {"": member})
    ]
    assert [each for each in commands if each not in text] == []


def test_a_planted_command_is_found_missing() -> None:
    assert isinstance(app, typer.Typer)
    words = command_words("run xenonode session dance 847b, then xenonode search 'cores >= 1'")
    assert words == {("session", "dance"), ("search",)}
    assert [each for each in sorted(words) if not exists(each)] == [("session", "dance")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_links_to_exists(name: str) -> None:
    links = file_links(rendered(name)[0])
    assert [link for link in links if not (ROOT / link.split("#")[0]).exists()] == []
    if name == "ARCHITECTURE.rst":
        assert len(links) > 50

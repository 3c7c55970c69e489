"""README.rst and the pages in docs/ as tests read them: their text, their blocks of code, their tables."""

from __future__ import annotations

import re
import textwrap

import docutils.core
import docutils.nodes

from tests.programs import ROOT

__all__ = ["PAGES", "blocks", "pictures", "tables", "text_of"]

_FILES = (ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst")))

#: The names of all pages: their paths without ``.rst``, such as ``docs/how-to/redis``.
PAGES = tuple(str(file.relative_to(ROOT).with_suffix("")) for file in _FILES)


def text_of(page: str) -> str:
    """The page as it is written."""
    return (ROOT / f"{page}.rst").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks of a language, in order."""
    form = rf"^(?P<margin> *)\.\. code-block:: {language}\n\n(?P<code>(?:(?P=margin)    .*\n|\n)+)"
    found = re.finditer(form, text_of(page) + "\n", re.M)
    return [textwrap.dedent(block["code"]).strip("\n") + "\n" for block in found]


def pictures(page: str) -> list[tuple[str, str]]:
    """The page's pictures: the path of each, from the page's folder, and its alternative text."""
    return re.findall(r"^\.\. image:: (\S+)\n(?: +:(?!alt:).*\n)*(?: +:alt: (\S.*))?", text_of(page), re.M)


def tables(page: str) -> list[list[list[list[str]]]]:
    """For each table of the page: its rows of cells, which are the literals in them."""
    text = re.sub(r":\w+:`([^`]+)`", r"\1", text_of(page))  # Sphinx's roles
    document = docutils.core.publish_doctree(
        text, settings_overrides={"syntax_highlight": "none", "report_level": 5, "halt_level": 5}
    )
    return [
        [
            [[literal.astext() for literal in entry.findall(docutils.nodes.literal)] for entry in row.children]
            for row in table.findall(docutils.nodes.row)
        ]
        for table in document.findall(docutils.nodes.table)
    ]

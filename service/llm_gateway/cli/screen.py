# SPDX-License-Identifier: Apache-2.0
"""What people see: text as it comes, dim asides, red complaints. Answers go to stdout, all else to stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.style import StyleType

CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)))
"""Control characters, which could move the cursor or recolour the terminal; a line feed and a tab are text."""
del CONTROL[ord("\n")], CONTROL[ord("\t")]
UNBOUNDED = 1000


def write(text: str, style: str | None = None) -> None:
    """Write a piece of an answer, at once and as it is: not wrapped, marked up or highlighted."""
    console = Console()
    if console.is_terminal:
        text = text.translate(CONTROL)
    console.out(text, end="", style=style, highlight=False)


def say(text: str) -> None:
    """Write a line of a command's result."""
    write(f"{text}\n")


def show(shown: RenderableType) -> None:
    """Write a table, say: where no terminal bounds it, as wide as it needs."""
    console().print(shown)


def console() -> Console:
    """Where tables go; what is in their cells is text, and no markup."""
    made = Console(markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = UNBOUNDED
    return made


def plain(text: str) -> str:
    """A word that somebody else chose, without what would move the cursor; on one line."""
    return text.translate(CONTROL).replace("\n", " ")


class PlainTable(Table):
    """A table whose cells, where they are words, have nothing that would move the cursor."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """Add a row; what is no mere word is taken as it is."""
        words = (plain(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*words, style=style, end_section=end_section)


def table(*columns: str) -> Table:
    """A table without a frame, its headings bold; see PlainTable."""
    made = PlainTable(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def aside(text: str, end: str = "\n") -> None:
    """Write what is no part of an answer, dim."""
    _to_stderr(text, "dim", end)


def complain(text: str) -> None:
    """Write a line about what is wrong, red."""
    _to_stderr(text, "red", "\n")


def _to_stderr(text: str, style: str, end: str) -> None:
    Console(stderr=True).out(text.translate(CONTROL), end=end, style=style, highlight=False)

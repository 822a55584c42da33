"""Pieces of a page. Every text that comes from runs passes `plain`, so none of it becomes markup."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from fttune.text import inert

_LONG = 90  # characters that a cell keeps on one line, marks of a digest among them


def plain(value: object) -> str:
    """Text as HTML shows it, in elements and in quoted attributes; control characters are written out."""
    return escape(inert(str(value)))


def embedded(value: object) -> str:
    """A JSON-able value for a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def table(columns: Sequence[str], rows: Iterable[str], *, name: str) -> str:
    """Rows of cells under their headings; where it is wider than the screen it scrolls, by keyboard too."""
    head = "".join(f"<th scope=col>{plain(column)}</th>" for column in columns)
    return (
        f'<div class=wide tabindex=0 role=region aria-label="{plain(name)}"><table class=sheet><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(cells: Iterable[object], **attributes: str) -> str:
    """One row of a table; attributes with a `data_` in front become `data-`."""
    told = "".join(f' {name.replace("_", "-")}="{plain(value)}"' for name, value in attributes.items())
    return f"<tr{told}>{''.join(map(cell, cells))}</tr>"


def cell(value: object) -> str:
    """Numbers stand to the right with four figures, run ids in letters of one width, None as a dash."""
    if value is None:
        return "<td>-</td>"
    if isinstance(value, int | float):
        return f"<td class=number>{value if isinstance(value, int) else format(value, '.4g')}</td>"
    kind = " class=long" if len(str(value)) > _LONG else ""
    return f"<td{kind}>{value if isinstance(value, Code) else plain(value)}</td>"


class Code(str):
    """An id or a digest, as HTML already."""

    def __new__(cls, text: str) -> "Code":
        """Marked up as code."""
        return super().__new__(cls, f"<code>{plain(text)}</code>")


def folded(title: str, content: str, *, place: str = "", lead: str = "") -> str:
    """Content that opens when its title is pressed; `place` is its address within the page."""
    address = f' id="{plain(place)}"' if place else ""
    return f"<details{address}><summary>{plain(title)}</summary>{lead}{content}</details>"


def listed(lines: Sequence[str]) -> str:
    """Lines as a list; nothing for none."""
    return f"<ul>{''.join(f'<li>{plain(line)}</li>' for line in lines)}</ul>" if lines else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page that its contents lead to; without content it is left out."""

    place: str
    title: str
    content: str  # HTML

    def __str__(self) -> str:
        head = f'<section aria-labelledby="{self.place}"><h2 id="{self.place}">{plain(self.title)}</h2>'
        return f"{head}\n{self.content}</section>"

    @property
    def link(self) -> str:
        """What leads to it."""
        return f'<a href="#{self.place}">{plain(self.title)}</a>'

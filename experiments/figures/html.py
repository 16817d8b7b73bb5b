"""A page of headings, tables and pictures in one self-contained HTML file."""

import base64
import html
import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.figures import png
from jist.staging import write_text

_STYLE = """
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 sans-serif;
  color: #222; background: #fff; }
h1 { font-size: 1.6rem; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
h3 { margin-top: 2rem; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
div.table { overflow-x: auto; margin: 1rem 0; }
th, td { padding: 0.25rem 0.4rem; border-bottom: 1px solid #ddd; text-align: right; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
blockquote { margin: 0.5rem 0; padding-left: 1rem; border-left: 3px solid #bbb; color: #555; }
img { max-width: 100%; height: auto; }
figure { margin: 1.5rem 0; }
figcaption { font-size: 0.8rem; color: #555; }
"""


class Page:
    """Collects the parts of a page, and writes its pictures beside it.

    Args:
        title: its title.
        directory: where page and pictures are written; made if missing.
    """

    def __init__(self, title: str, directory: pathlib.Path):
        self._title = html.escape(title)
        self._directory = directory
        self._parts = [f"<h1>{self._title}</h1>"]

    def heading(self, text: str) -> None:
        """Begins a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def subheading(self, text: str) -> None:
        """Begins a part of a section."""
        self._parts.append(f"<h3>{html.escape(text)}</h3>")

    def paragraph(self, text: str) -> None:
        """Adds a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def quote(self, text: str) -> None:
        """Adds a quotation from the paper."""
        self._parts.append(f"<blockquote>The paper: {html.escape(text)}.</blockquote>")

    def items(self, texts: Sequence[str]) -> None:
        """Adds a list."""
        listed = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
        self._parts.append(f"<ul>{listed}</ul>")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table; the first column is of names, the others of numbers."""

        def line(cells: Sequence[str], tag: str) -> str:
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        body = "\n".join([line(columns, "th"), *(line(row, "td") for row in rows)])
        self._parts.append(f'<div class="table"><table>\n{body}\n</table></div>')

    def figure(self, name: str, figure: Figure) -> None:
        """Adds a picture, and writes it as `name`.png."""
        path = self._directory / f"{name}.png"
        png.write(figure, path)
        data = base64.b64encode(path.read_bytes()).decode()
        # At half its pixels, so that it is sharp on dense screens.
        width = round(figure.get_figwidth() * 100)
        self._parts.append(
            f'<figure><img src="data:image/png;base64,{data}" width="{width}" '
            f'alt="{html.escape(name)}"><figcaption>{html.escape(name)}.png</figcaption></figure>'
        )

    def write(self, name: str) -> None:
        """Writes the page whole or not at all."""
        self._directory.mkdir(parents=True, exist_ok=True)
        text = "\n".join(
            [
                '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{self._title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
                *self._parts,
                "</body>\n</html>\n",
            ]
        )
        write_text(self._directory / name, text)

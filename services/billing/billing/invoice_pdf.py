"""Our own invoices as PDF: the same words and figures as the page's.

PDF readers bring fonts with the letters of Western Europe, and so does the PDF by default. With a font of the
operator's own (ARAGORA_INVOICE_FONT, a TrueType file) it has all letters that this font has. A letter that is missing
is shown by its nearest relative (ő as o) or as a question mark, and then the PDF says so; the HTML page shows every
letter.
"""

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fpdf import FPDF, FontFace
from fpdf.enums import TableBordersLayout, WrapMode

from billing.invoice_documents import Document

MISSING = "Letters that this document's font lacks are replaced. The web page of the invoice shows all of them."
_SIZE = 9
_GREY = (90, 100, 112)
_NEAREST = str.maketrans(
    {"Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "\u0131": "i", "Ħ": "H", "ħ": "h", "ẞ": "SS", "€": "EUR"}
)
_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "\u2026": "..."}
)


def pdf(one: Document, font: Path | None = None) -> bytes:
    """The invoice as PDF. `font`: a TrueType file; None: the readers' own Helvetica."""
    sheet = _Sheet(font, one.invoice.finalized_at or one.invoice.created_at)
    to = one.billed_to
    sheet.heading("Invoice", one.invoice.number or one.invoice.invoice_id)
    sheet.block(one.issuer)
    tax = [f"Tax id {to.tax_id}"] if to.tax_id else []
    sheet.block(["Billed to", to.name, *to.address, *([to.country] if to.country else []), *tax])
    sheet.block([f"{name}: {value}" for name, value in one.facts] + [f"Status: {one.status}"])
    sheet.rows([((line.description, line.explanation.text), amount) for line, amount in one.lines], one.sums)
    return sheet.finished()


class _Sheet:
    """A PDF that is being written."""

    def __init__(self, font: Path | None, written_at: datetime) -> None:
        self._pdf = FPDF(format="A4")
        self._pdf.set_creation_date(written_at)
        self._pdf.set_margin(20)
        self._pdf.set_draw_color(200, 205, 212)
        self._pdf.set_auto_page_break(auto=True, margin=20)
        self._lacks = False
        self._known: frozenset[int] | None = None
        self._family = "Helvetica"
        if font:
            self._family = "invoice"
            self._pdf.add_font(self._family, fname=font)
            self._known = frozenset(self._pdf.fonts[self._family].cmap)  # type: ignore[union-attr]
        self._pdf.add_page()
        self._font()

    def _font(self, size: int = _SIZE, colour: tuple[int, int, int] = (28, 33, 39)) -> None:
        self._pdf.set_font(self._family, size=size)
        self._pdf.set_text_color(*colour)

    def heading(self, text: str, number: str) -> None:
        self._font(20)
        self._pdf.cell(0, 10, self.written(text), new_x="LMARGIN", new_y="NEXT")
        self._font(11, _GREY)
        self._pdf.cell(0, 6, self.written(number), new_x="LMARGIN", new_y="NEXT")
        self._pdf.ln(4)

    def block(self, lines: Sequence[str]) -> None:
        self._font()
        for line in lines:
            self._pdf.multi_cell(0, 5, self.written(line), new_x="LMARGIN", new_y="NEXT", wrapmode=WrapMode.CHAR)
        self._pdf.ln(4)

    def rows(self, lines: Sequence[tuple[tuple[str, str], str]], sums: Sequence[tuple[str, str]]) -> None:
        self._font()
        grey = FontFace(color=_GREY)
        with self._pdf.table(
            col_widths=(75, 25), text_align=("LEFT", "RIGHT"), borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            line_height=5, padding=1, first_row_as_headings=False,
        ) as table:  # fmt: skip
            for (what, why), amount in lines:
                table.row([self.written(what), self.written(amount)])
                table.row([self.written(why), ""], style=grey)
            for name, amount in sums:
                table.row([self.written(name), self.written(amount)])

    def finished(self) -> bytes:
        if self._lacks:
            self._pdf.ln(6)
            self._font(8, _GREY)
            self._pdf.multi_cell(0, 4, MISSING, new_x="LMARGIN", new_y="NEXT")
        return bytes(self._pdf.output())

    def written(self, text: str) -> str:
        """The text in letters that the font has."""
        if self._known is None:
            text = text.translate(_TYPOGRAPHY)
        return "".join(one if self._has(one) else self._nearest(one) for one in unicodedata.normalize("NFC", text))

    def _has(self, letter: str) -> bool:
        if self._known is not None:
            return ord(letter) in self._known
        return letter.encode("latin-1", "ignore") != b""

    def _nearest(self, letter: str) -> str:
        self._lacks = True
        bare = unicodedata.normalize("NFKD", letter.translate(_NEAREST))
        found = "".join(one for one in bare if self._has(one) and one.isprintable())
        return found or ("" if unicodedata.combining(letter) else "?")

"""Our own invoices as documents: whatever a name holds, both forms are made; nothing of it becomes markup."""

import re
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import invoice_answers as answers
from billing import invoice_documents, invoice_pdf
from billing.invoice import Status
from billing.invoice_documents import Document
from billing.invoice_pdf import MISSING
from billing.settings import Settings

DEJAVU = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def at(month: int, day: int) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def document(
    name: str = "Acme", address: tuple[str, ...] = (), status: Status = "open", credited: str = "9.46"
) -> Document:
    why = answers.Explanation("Team, version 1, at USD 29.90 a month.")
    line = answers.InvoiceLine(
        "1", "proration", "Team, part of it", Decimal("29.46"), None, None, at(10, 10), at(11, 1), why
    )
    invoice = answers.Invoice(
        invoice_id="inv_1", number="ARA-2026-000042", collected_by="operator", status=status, currency="usd",
        total=Decimal("29.46"), credited=Decimal(credited), amount_due=Decimal("20.00"), amount_paid=Decimal("5.00"),
        period_start=at(10, 1), period_end=at(11, 1), created_at=at(11, 5), finalized_at=at(11, 5), due_at=at(12, 5),
        paid_at=None, lines=[line],
    )  # fmt: skip
    to = answers.BilledTo(name=name, address=list(address), country="PL", tax_id="PL 123")
    return invoice_documents.document(invoice, msgspec.json.encode(to).decode(), "Aragora Inc.; 1 Market Street;")


def text_of(pdf: bytes) -> str:
    """What a PDF with readers' own fonts says."""
    streams = [zlib.decompress(one) for one in re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)]
    return " ".join(re.findall(r"\((.*?)\) Tj", b" ".join(streams).decode("latin-1")))


def test_both_forms_say_the_same():
    page, text = invoice_documents.html(document()), text_of(invoice_pdf.pdf(document()))
    for said in (
        "ARA-2026-000042", "Aragora Inc.", "1 Market Street", "Acme", "PL 123", "5 November 2026", "5 December 2026",
        "2026-10", "partly paid", "Team, part of it", "USD 29.46", "USD -9.46", "USD -5.00", "USD 15.00",
    ):  # fmt: skip
        assert said in page
        assert said in text
    assert MISSING not in text
    assert "withdrawn: nothing is owed" in invoice_documents.html(document(status="void"))
    assert "Credit applied" not in invoice_documents.html(document(credited="0"))


def test_a_page_fetches_nothing_and_takes_no_markup_from_names():
    page = invoice_documents.html(document('<script>alert("1")</script>', ("<img src=x>", "&amp;")))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "&amp;amp;" in page
    assert not re.search(r"https?:|//|url\(|@import|<link", page)


def test_letters_that_the_font_lacks_are_replaced_and_the_document_says_so():
    text = text_of(invoice_pdf.pdf(document("Łukasz Őry & Сою́з", ("東京",))))
    assert "Lukasz Ory & ????" in text
    assert MISSING in text
    assert "東京" in invoice_documents.html(document(address=("東京",)))
    assert MISSING not in text_of(invoice_pdf.pdf(document("Müller & Søn, “Ñandú” straße")))


def test_with_a_font_of_its_own_it_has_its_letters():
    own, plain = (invoice_pdf.pdf(document("Łódź Őry Союз"), font) for font in (DEJAVU, None))
    assert own.startswith(b"%PDF-")
    assert b"FontFile2" in own
    assert b"FontFile2" not in plain
    assert invoice_pdf.pdf(document(), DEJAVU) == invoice_pdf.pdf(document(), DEJAVU)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), st.booleans())
def test_any_name_can_be_written(name, own):
    assert invoice_pdf.pdf(document(name, (name, name)), DEJAVU if own else None).startswith(b"%PDF-")
    assert invoice_documents.html(document(name))


def test_a_font_that_is_not_there_stops_the_service():
    given_settings = {"DATABASE_URL": "postgresql://nowhere", "ARAGORA_INVOICE_FONT": "/no/such/font.ttf"}
    with pytest.raises(ValueError, match="ARAGORA_INVOICE_FONT"):
        Settings.model_validate(given_settings)


def test_the_template_comes_with_the_package():
    assert files("billing").joinpath("templates/invoice.html").is_file()

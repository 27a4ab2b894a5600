"""Our own invoices as documents: what they say, and as a page. Nothing is fetched from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from billing import invoice_answers as answers
from billing.invoice_reading import money
from billing.stretches import day_in_words, midnight

_pages = Environment(
    loader=PackageLoader("billing"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class Document:
    """What both forms of an invoice say."""

    invoice: answers.Invoice
    billed_to: answers.BilledTo
    issuer: Sequence[str]
    """Who bills: name and address, line by line."""

    @property
    def status(self) -> str:
        """How it stands, in words."""
        if self.invoice.status == "open":
            return "open" if not self.invoice.amount_paid else "partly paid"
        return "withdrawn: nothing is owed" if self.invoice.status == "void" else self.invoice.status

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Number and dates."""
        one = self.invoice
        said = [("Number", one.number or one.invoice_id)]
        for name, moment in (("Issued", one.finalized_at), ("Due", one.due_at)):
            if moment is not None:
                said.append((name, day_in_words(midnight(moment))))
        if one.period_start is not None and one.period_end is not None:
            said.append(("Month", f"{one.period_start:%Y-%m} (UTC)"))
        return said

    @property
    def lines(self) -> list[tuple[answers.InvoiceLine, str]]:
        """The lines, each with its amount."""
        return [(line, money(line.amount, self.invoice.currency)) for line in self.invoice.lines]

    @property
    def sums(self) -> list[tuple[str, str]]:
        """From the total to what is still to be paid."""
        one = self.invoice
        found = [("Total", one.total)]
        if one.credited:
            found.append(("Credit applied" if one.credited > 0 else "Credited to the balance", -one.credited))
        if one.amount_paid:
            found.append(("Paid", -one.amount_paid))
        owed = one.amount_due - one.amount_paid
        found.append(("To be paid", owed * 0 if one.status == "void" else owed))
        return [(name, money(amount, one.currency)) for name, amount in found]


def document(invoice: answers.Invoice, billed_to: str | None, issuer: str) -> Document:
    """The document of an invoice. `billed_to` is JSON; the lines of `issuer` are separated by `;`."""
    to = msgspec.json.decode(billed_to, type=answers.BilledTo) if billed_to else answers.BilledTo(name="")
    return Document(invoice, to, [line.strip() for line in issuer.split(";") if line.strip()])


def html(one: Document) -> str:
    """The invoice as a page that prints well."""
    return _pages.get_template("invoice.html").render(
        invoice=one.invoice, billed_to=one.billed_to, issuer=one.issuer, facts=one.facts, status=one.status,
        lines=one.lines, sums=one.sums,
    )  # fmt: skip

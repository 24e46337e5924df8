from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from acme.core import ZERO, find, grouped, summed, total
from acme.dates import month_key
from acme.models import Customer, Order, Payment, Product
from acme.payments import late_fee
from acme.taxes import TaxLine, tax_lines


@dataclass(frozen=True, slots=True)
class Invoice:
    number: str
    order_id: str
    customer_id: str
    issued: date
    due: date
    lines: tuple[TaxLine, ...]

    @property
    def net(self) -> Decimal:
        return total(line.net for line in self.lines)

    @property
    def tax(self) -> Decimal:
        return total(line.tax for line in self.lines)

    @property
    def gross(self) -> Decimal:
        return self.net + self.tax


def invoice_number(year: int, serial: int) -> str:
    return f"INV-{year}-{serial:05d}"


def serial(number: str) -> int:
    return int(number.rpartition("-")[2])


def next_number(invoices: Iterable[Invoice], year: int) -> str:
    used = (serial(invoice.number) for invoice in invoices if invoice.issued.year == year)
    return invoice_number(year, max(used, default=0) + 1)


def invoice_for(order: Order, products: Iterable[Product], number: str, country: str, issued: date, terms: int = 14) -> Invoice:
    lines = tax_lines(order, products, country)
    return Invoice(number, order.id, order.customer_id, issued, issued + timedelta(days=terms), lines)


def invoice_batch(orders: Iterable[Order], products: Iterable[Product], issued: date, start: int = 1) -> tuple[Invoice, ...]:
    goods = tuple(products)
    ready = (order for order in orders if order.status in ("paid", "shipped"))
    return tuple(
        invoice_for(order, goods, invoice_number(issued.year, n), "DE", issued)
        for n, order in enumerate(ready, start)
    )


def invoice_by_order(invoices: Iterable[Invoice], order_id: str) -> Invoice | None:
    return find(invoices, lambda invoice: invoice.order_id == order_id)


def number_gaps(invoices: Iterable[Invoice]) -> tuple[int, ...]:
    used = {serial(invoice.number) for invoice in invoices}
    return tuple(n for n in range(min(used, default=1), max(used, default=0)) if n not in used)


def overdue(invoices: Iterable[Invoice], payments: Iterable[Payment], today: date) -> tuple[Invoice, ...]:
    settled = summed(payments, lambda p: p.order_id, lambda p: p.amount)
    return tuple(i for i in invoices if i.due < today and settled.get(i.order_id, ZERO) < i.gross)


def reminder_level(invoice: Invoice, today: date) -> int:
    return min(3, max(0, (today - invoice.due).days // 14))


def reminders(invoices: Iterable[Invoice], today: date) -> dict[int, tuple[Invoice, ...]]:
    levels = grouped(invoices, lambda invoice: reminder_level(invoice, today))
    return {level: group for level, group in sorted(levels.items()) if level}


def amount_due(invoice: Invoice, today: date) -> Decimal:
    return invoice.gross + late_fee(invoice.gross, (today - invoice.due).days)


def credit_note(invoice: Invoice, number: str, issued: date) -> Invoice:
    lines = tuple(TaxLine(line.rate, -line.net, -line.tax) for line in invoice.lines)
    return Invoice(number, invoice.order_id, invoice.customer_id, issued, issued, lines)


def billed_by_month(invoices: Iterable[Invoice]) -> dict[str, Decimal]:
    return dict(sorted(summed(invoices, lambda i: month_key(i.issued), lambda i: i.gross).items()))


def billed_by_customer(invoices: Iterable[Invoice]) -> dict[str, Decimal]:
    return summed(invoices, lambda invoice: invoice.customer_id, lambda invoice: invoice.gross)


def tax_rows(invoice: Invoice) -> tuple[str, ...]:
    return tuple(f"{line.rate:>5} % of {line.net:>10} = {line.tax:>9}" for line in invoice.lines)


def rendered(invoice: Invoice, customer: Customer) -> str:
    head = (f"Invoice {invoice.number}", customer.name, f"Issued {invoice.issued}, due {invoice.due}", "")
    foot = ("", f"Net   {invoice.net:>10}", f"Tax   {invoice.tax:>10}", f"Total {invoice.gross:>10}")
    return "\n".join((*head, *tax_rows(invoice), *foot))

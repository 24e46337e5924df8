from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from acme.core import ZERO, grouped, keyed, money, percent, summed, total
from acme.models import Customer, Line, Order, Product

Rates = Mapping[tuple[str, str], Decimal]

EU = frozenset({"AT", "BE", "DE", "DK", "ES", "FI", "FR", "IE", "IT", "NL", "PL", "PT", "SE"})
RATES: Rates = {
    ("DE", "standard"): Decimal(19),
    ("DE", "reduced"): Decimal(7),
    ("FR", "standard"): Decimal(20),
    ("FR", "reduced"): Decimal("5.5"),
    ("NL", "standard"): Decimal(21),
    ("NL", "reduced"): Decimal(9),
}


@dataclass(frozen=True, slots=True)
class TaxLine:
    rate: Decimal
    net: Decimal
    tax: Decimal

    @property
    def gross(self) -> Decimal:
        return self.net + self.tax


def rate_for(rates: Rates, country: str, tax_class: str = "standard") -> Decimal:
    return rates.get((country, tax_class), ZERO)


def tax(net: Decimal, rate: Decimal) -> Decimal:
    return percent(net, rate)


def gross(net: Decimal, rate: Decimal) -> Decimal:
    return net + tax(net, rate)


def net(amount: Decimal, rate: Decimal) -> Decimal:
    return money(amount * 100 / (100 + rate))


def included_tax(amount: Decimal, rate: Decimal) -> Decimal:
    return amount - net(amount, rate)


def is_export(seller: str, buyer: str) -> bool:
    return seller in EU and buyer not in EU


def is_reverse_charge(seller: str, buyer: str, vat_id: str | None) -> bool:
    return seller != buyer and {seller, buyer} <= EU and bool(vat_id)


def place_of_supply(seller: str, customer: Customer) -> str:
    return customer.country if customer.country in EU else seller


def line_rate(line: Line, products: Mapping[str, Product], country: str, rates: Rates = RATES) -> Decimal:
    product = products.get(line.sku)
    return rate_for(rates, country, product.tax_class if product else "standard")


def tax_lines(order: Order, products: Iterable[Product], country: str, rates: Rates = RATES) -> tuple[TaxLine, ...]:
    by_sku = keyed(products, lambda p: p.sku)
    nets = summed(order.lines, lambda line: line_rate(line, by_sku, country, rates), lambda line: line.amount)
    return tuple(TaxLine(rate, base, tax(base, rate)) for rate, base in sorted(nets.items()))


def order_tax(order: Order, products: Iterable[Product], country: str, rates: Rates = RATES) -> Decimal:
    return total(line.tax for line in tax_lines(order, products, country, rates))


def order_gross(order: Order, products: Iterable[Product], country: str, rates: Rates = RATES) -> Decimal:
    return order.total + order_tax(order, products, country, rates)


def tax_by_country(orders: Iterable[Order], customers: Iterable[Customer], products: Iterable[Product]) -> dict[str, Decimal]:
    goods = tuple(products)
    home = {c.id: c.country or "DE" for c in customers}
    return {
        country: total(order_tax(order, goods, country) for order in group)
        for country, group in grouped(orders, lambda o: home.get(o.customer_id, "DE")).items()
    }


def quarter_return(lines: Iterable[TaxLine]) -> dict[Decimal, TaxLine]:
    return {
        rate: TaxLine(rate, total(l.net for l in group), total(l.tax for l in group))
        for rate, group in grouped(lines, lambda l: l.rate).items()
    }


def filing_due(year: int, quarter: int) -> date:
    return date(year + quarter // 4, quarter * 3 % 12 + 1, 10)


def checks_out(line: TaxLine) -> bool:
    return abs(tax(line.net, line.rate) - line.tax) <= Decimal("0.01")

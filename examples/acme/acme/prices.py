from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from acme.core import CENT, ZERO, clamp, grouped, keyed, money, percent, total
from acme.models import Line, Order, Product


@dataclass(frozen=True, slots=True)
class PriceRow:
    sku: str
    price: Decimal
    start: date
    end: date | None = None
    currency: str = "EUR"

    def covers(self, day: date) -> bool:
        return self.start <= day and (self.end is None or day <= self.end)


@dataclass(frozen=True, slots=True)
class Break:
    qty: int
    price: Decimal


def price_on(rows: Iterable[PriceRow], sku: str, day: date) -> Decimal | None:
    matches = (row for row in rows if row.sku == sku and row.covers(day))
    best = max(matches, key=lambda row: row.start, default=None)
    return best.price if best else None


def price_list(rows: Iterable[PriceRow], day: date) -> dict[str, Decimal]:
    live = (row for row in rows if row.covers(day))
    return {row.sku: row.price for row in sorted(live, key=lambda row: row.start)}


def current_price(rows: Iterable[PriceRow], product: Product, day: date) -> Decimal:
    found = price_on(rows, product.sku, day)
    return product.price if found is None else found


def overlaps(rows: Iterable[PriceRow]) -> tuple[tuple[PriceRow, PriceRow], ...]:
    return tuple(
        (a, b)
        for group in grouped(rows, lambda row: row.sku).values()
        for a in group
        for b in group
        if a.start < b.start and a.covers(b.start)
    )


def break_price(breaks: Iterable[Break], qty: int, base: Decimal) -> Decimal:
    steps = sorted(breaks, key=lambda step: step.qty)
    index = bisect_right([step.qty for step in steps], qty)
    return steps[index - 1].price if index else base


def converted(amount: Decimal, rates: Mapping[str, Decimal], source: str, target: str) -> Decimal:
    if source == target:
        return money(amount)
    return money(amount / rates[source] * rates[target])


def margin(price: Decimal, cost: Decimal) -> Decimal:
    return money((price - cost) * 100 / price) if price else ZERO


def price_for_margin(cost: Decimal, rate: Decimal) -> Decimal:
    if rate >= 100:
        raise ValueError(f"margin of {rate} % cannot be reached")
    return money(cost * 100 / (100 - rate))


def charm(price: Decimal) -> Decimal:
    return max(CENT, money(price.to_integral_value()) - CENT)


def rounded_to(price: Decimal, step: Decimal) -> Decimal:
    return money((price / step).to_integral_value() * step)


def marked_up(products: Iterable[Product], rate: Decimal) -> dict[str, Decimal]:
    return {p.sku: p.price + percent(p.price, rate) for p in products}


def bounded(price: Decimal, product: Product, swing: Decimal = Decimal(20)) -> Decimal:
    room = percent(product.price, swing)
    return clamp(price, product.price - room, product.price + room)


def repriced_order(order: Order, prices: Mapping[str, Decimal]) -> Order:
    return order.with_lines(*(Line(l.sku, l.qty, prices.get(l.sku, l.price)) for l in order.lines))


def price_drift(order: Order, products: Iterable[Product]) -> Decimal:
    by_sku = keyed(products, lambda p: p.sku)
    return total((by_sku[l.sku].price - l.price) * l.qty for l in order.lines if l.sku in by_sku)


def basket_price(cart: Mapping[str, int], prices: Mapping[str, Decimal]) -> Decimal:
    return total(prices[sku] * qty for sku, qty in cart.items())


def cheapest_supplier(quotes: Mapping[str, Mapping[str, Decimal]], sku: str) -> str | None:
    offers = {name: prices[sku] for name, prices in quotes.items() if sku in prices}
    return min(offers, key=lambda name: (offers[name], name), default=None)

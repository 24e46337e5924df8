from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from itertools import accumulate
from statistics import median
from typing import TypeVar

from acme.core import ZERO, counted, grouped, keyed, mapped, money, ratio, summed, top, total
from acme.dates import Span, by_month, inside, month_key, month_keys, quarter_key
from acme.models import Customer, Order, Product
from acme.orders import all_lines

T = TypeVar("T")


def revenue(orders: Iterable[Order]) -> Decimal:
    return total(order.total for order in orders if order.status != "cancelled")


def revenue_in(orders: Iterable[Order], span: Span) -> Decimal:
    return revenue(order for order in orders if inside(order.placed, span))


def revenue_by_month(orders: Iterable[Order]) -> dict[str, Decimal]:
    return mapped(by_month(orders, lambda order: order.placed), revenue)


def revenue_by_quarter(orders: Iterable[Order]) -> dict[str, Decimal]:
    return dict(sorted(summed(orders, lambda o: quarter_key(o.placed), lambda o: o.total).items()))


def revenue_by_country(orders: Iterable[Order], customers: Iterable[Customer]) -> dict[str, Decimal]:
    home = {customer.id: customer.country or "?" for customer in customers}
    return summed(orders, lambda o: home.get(o.customer_id, "?"), lambda o: o.total)


def revenue_by_category(orders: Iterable[Order], products: Iterable[Product]) -> dict[str, Decimal]:
    by_sku = keyed(products, lambda p: p.sku)
    known = (line for line in all_lines(orders) if line.sku in by_sku)
    return summed(known, lambda line: by_sku[line.sku].category, lambda line: line.amount)


def units_by_sku(orders: Iterable[Order]) -> dict[str, int]:
    groups = grouped(all_lines(orders), lambda line: line.sku)
    return {sku: sum(line.qty for line in group) for sku, group in groups.items()}


def best_sellers(orders: Iterable[Order], count: int = 10) -> tuple[tuple[str, int], ...]:
    return top(units_by_sku(orders), count)


def best_customers(orders: Iterable[Order], count: int = 10) -> tuple[tuple[str, Decimal], ...]:
    return top(summed(orders, lambda o: o.customer_id, lambda o: o.total), count)


def status_counts(orders: Iterable[Order]) -> dict[str, int]:
    return dict(sorted(counted(orders, lambda order: order.status).items()))


def median_value(orders: Iterable[Order]) -> Decimal:
    totals = tuple(order.total for order in orders)
    return money(median(totals)) if totals else ZERO


def cancel_rate(orders: Iterable[Order]) -> Decimal:
    counts = status_counts(orders)
    return ratio(counts.get("cancelled", 0), sum(counts.values()))


def growth(series: Mapping[str, Decimal]) -> dict[str, Decimal]:
    keys = sorted(series)
    return {b: ratio((series[b] - series[a]) * 100, series[a]) for a, b in zip(keys, keys[1:])}


def running_total(series: Mapping[str, Decimal]) -> dict[str, Decimal]:
    keys = sorted(series)
    return dict(zip(keys, accumulate(series[k] for k in keys)))


def filled_months(series: Mapping[str, Decimal], start: date, end: date) -> dict[str, Decimal]:
    return {key: series.get(key, ZERO) for key in month_keys(start, end)}


def shares(table: Mapping[str, Decimal]) -> dict[str, Decimal]:
    whole = total(table.values())
    return mapped(table, lambda amount: ratio(amount * 100, whole))


def abc_classes(orders: Iterable[Order]) -> dict[str, str]:
    ranked = top(summed(all_lines(orders), lambda l: l.sku, lambda l: l.amount), 10**6)
    whole = total(amount for _, amount in ranked) or Decimal(1)
    reached = accumulate(amount for _, amount in ranked)
    return {sku: "ABC"[(r > whole * 80 / 100) + (r > whole * 95 / 100)] for (sku, _), r in zip(ranked, reached)}


def cohorts(customers: Iterable[Customer], orders: Iterable[Order]) -> dict[tuple[str, str], int]:
    joined = {customer.id: month_key(customer.joined) for customer in customers}
    pairs = {(joined[o.customer_id], month_key(o.placed), o.customer_id) for o in orders if o.customer_id in joined}
    return counted(sorted(pairs), lambda pair: pair[:2])


def pivot(items: Iterable[T], row: Callable[[T], str], col: Callable[[T], str], amount: Callable[[T], Decimal]) -> dict[str, dict[str, Decimal]]:
    return {key: summed(group, col, amount) for key, group in sorted(grouped(items, row).items())}


def table(rows: Iterable[tuple[object, ...]]) -> str:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells)


def bar_chart(series: Mapping[str, Decimal], width: int = 40) -> str:
    peak = max(series.values(), default=ZERO) or Decimal(1)
    return "\n".join(f"{key} {'#' * int(value * width / peak)} {value}" for key, value in series.items())

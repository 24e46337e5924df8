from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import chain

from acme.core import ZERO, grouped, keyed, money, total
from acme.models import Line, Order, Product, Status

NEXT_STATUS: dict[Status, tuple[Status, ...]] = {
    "open": ("paid", "cancelled"),
    "paid": ("shipped", "cancelled"),
    "shipped": ("closed",),
    "closed": (),
    "cancelled": (),
}


def line_for(product: Product, qty: int) -> Line:
    return Line(product.sku, qty, product.price)


def order_of(order_id: str, customer_id: str, placed: date, cart: Mapping[str, int], products: Iterable[Product]) -> Order:
    by_sku = keyed(products, lambda p: p.sku)
    return Order(order_id, customer_id, placed, tuple(line_for(by_sku[sku], qty) for sku, qty in cart.items()))


def all_lines(orders: Iterable[Order]) -> tuple[Line, ...]:
    return tuple(chain.from_iterable(order.lines for order in orders))


def order_by_id(orders: Iterable[Order], order_id: str) -> Order | None:
    return next((order for order in orders if order.id == order_id), None)


def orders_by_customer(orders: Iterable[Order]) -> dict[str, tuple[Order, ...]]:
    return grouped(orders, lambda order: order.customer_id)


def orders_by_status(orders: Iterable[Order]) -> dict[Status, tuple[Order, ...]]:
    return grouped(orders, lambda order: order.status)


def open_orders(orders: Iterable[Order]) -> tuple[Order, ...]:
    return tuple(order for order in orders if order.status == "open")


def placed_between(orders: Iterable[Order], start: date, end: date) -> tuple[Order, ...]:
    return tuple(order for order in orders if start <= order.placed <= end)


def with_sku(orders: Iterable[Order], sku: str) -> tuple[Order, ...]:
    return tuple(order for order in orders if any(line.sku == sku for line in order.lines))


def largest_order(orders: Iterable[Order]) -> Order | None:
    return max(orders, key=lambda order: order.total, default=None)


def average_value(orders: Iterable[Order]) -> Decimal:
    totals = tuple(order.total for order in orders)
    return money(total(totals) / len(totals)) if totals else ZERO


def merged_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(
        Line(sku, sum(line.qty for line in group), price)
        for (sku, price), group in grouped(lines, lambda line: (line.sku, line.price)).items()
    )


def merged(orders: Iterable[Order]) -> Order | None:
    if not (batch := tuple(orders)):
        return None
    return replace(batch[0], lines=merged_lines(all_lines(batch)))


def without_line(order: Order, sku: str) -> Order:
    return order.with_lines(*(line for line in order.lines if line.sku != sku))


def with_qty(order: Order, sku: str, qty: int) -> Order:
    if qty <= 0:
        return without_line(order, sku)
    return order.with_lines(*(replace(line, qty=qty) if line.sku == sku else line for line in order.lines))


def can_move(order: Order, status: Status) -> bool:
    return status in NEXT_STATUS[order.status]


def moved(order: Order, status: Status) -> Order:
    if not can_move(order, status):
        raise ValueError(f"{order.id}: {order.status} -> {status} is not allowed")
    return order.with_status(status)


def backlog_value(orders: Iterable[Order]) -> Decimal:
    return total(order.total for order in orders if order.status in ("open", "paid"))


def oldest_open(orders: Iterable[Order]) -> Order | None:
    return min(open_orders(orders), key=lambda order: order.placed, default=None)


def split_by_stock(order: Order, stock: Mapping[str, int]) -> tuple[Order, Order]:
    ready = tuple(line for line in order.lines if stock.get(line.sku, 0) >= line.qty)
    waiting = tuple(line for line in order.lines if line not in ready)
    return order.with_lines(*ready), replace(order, id=f"{order.id}-B", lines=waiting)

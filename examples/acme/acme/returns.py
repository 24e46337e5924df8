from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

from acme.core import ZERO, counted, find, grouped, money, percent, summed, total
from acme.models import Order
from acme.orders import all_lines
from acme.stock import Move, demand

Reason = Literal["damaged", "wrong", "late", "unwanted"]

WINDOW: dict[Reason, int] = {"damaged": 730, "wrong": 90, "late": 30, "unwanted": 14}


@dataclass(frozen=True, slots=True)
class Return:
    order_id: str
    sku: str
    qty: int
    received: date
    reason: Reason = "unwanted"


def in_window(item: Return, order: Order) -> bool:
    return (item.received - order.placed).days <= WINDOW[item.reason]


def bought(order: Order, sku: str) -> int:
    return sum(line.qty for line in order.lines if line.sku == sku)


def accepted(item: Return, order: Order) -> bool:
    return order.status in ("shipped", "closed") and item.qty <= bought(order, item.sku) and in_window(item, order)


def restock_fee(item: Return, amount: Decimal, rate: Decimal = Decimal(10)) -> Decimal:
    return percent(amount, rate) if item.reason == "unwanted" else ZERO


def refund_amount(item: Return, order: Order) -> Decimal:
    line = find(order.lines, lambda line: line.sku == item.sku)
    if line is None or not accepted(item, order):
        return ZERO
    return (amount := money(line.price * item.qty)) - restock_fee(item, amount)


def refunds_by_order(returns: Iterable[Return], orders: Iterable[Order]) -> dict[str, Decimal]:
    by_id = {order.id: order for order in orders}
    known = (item for item in returns if item.order_id in by_id)
    return summed(known, lambda r: r.order_id, lambda r: refund_amount(r, by_id[r.order_id]))


def restock_moves(returns: Iterable[Return]) -> tuple[Move, ...]:
    return tuple(Move(r.sku, r.qty, r.received, reason="return") for r in returns if r.reason != "damaged")


def return_rate(returns: Iterable[Return], orders: Iterable[Order]) -> dict[str, float]:
    sold = demand(all_lines(orders))
    back = {sku: sum(r.qty for r in group) for sku, group in grouped(returns, lambda r: r.sku).items()}
    return {sku: back.get(sku, 0) / qty for sku, qty in sold.items()}


def reasons(returns: Iterable[Return]) -> dict[Reason, int]:
    return counted(returns, lambda item: item.reason)


def worst_skus(returns: Iterable[Return], orders: Iterable[Order], limit: int = 5) -> tuple[str, ...]:
    rates = return_rate(returns, orders)
    return tuple(sorted((s for s in rates if rates[s] > 0), key=lambda s: (-rates[s], s))[:limit])


def write_offs(returns: Iterable[Return], orders: Iterable[Order]) -> Decimal:
    prices = {(o.id, line.sku): line.price for o in orders for line in o.lines}
    return total(prices.get((r.order_id, r.sku), ZERO) * r.qty for r in returns if r.reason == "damaged")


def serial_returners(returns: Iterable[Return], orders: Iterable[Order], limit: int = 3) -> tuple[str, ...]:
    owner = {order.id: order.customer_id for order in orders}
    counts = counted(returns, lambda item: owner.get(item.order_id, ""))
    return tuple(sorted(customer for customer, n in counts.items() if customer and n >= limit))

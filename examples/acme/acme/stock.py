from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import reduce
from math import ceil, sqrt

from acme.core import grouped, total
from acme.models import Line, Order, Product
from acme.orders import all_lines

Stock = Mapping[str, int]
Filled = tuple[dict[str, int], tuple[Order, ...]]


@dataclass(frozen=True, slots=True)
class Move:
    sku: str
    qty: int
    moved: date
    warehouse: str = "main"
    reason: str = "count"


def level(moves: Iterable[Move], sku: str) -> int:
    return sum(move.qty for move in moves if move.sku == sku)


def levels(moves: Iterable[Move]) -> dict[str, int]:
    return {sku: sum(m.qty for m in group) for sku, group in grouped(moves, lambda m: m.sku).items()}


def levels_by_warehouse(moves: Iterable[Move]) -> dict[str, dict[str, int]]:
    return {name: levels(group) for name, group in grouped(moves, lambda m: m.warehouse).items()}


def levels_at(moves: Iterable[Move], day: date) -> dict[str, int]:
    return levels(move for move in moves if move.moved <= day)


def reserved(orders: Iterable[Order]) -> dict[str, int]:
    waiting = (order for order in orders if order.status in ("open", "paid"))
    return demand(all_lines(waiting))


def demand(lines: Iterable[Line]) -> dict[str, int]:
    return {sku: sum(line.qty for line in group) for sku, group in grouped(lines, lambda line: line.sku).items()}


def available(stock: Stock, orders: Iterable[Order]) -> dict[str, int]:
    held = reserved(orders)
    return {sku: qty - held.get(sku, 0) for sku, qty in stock.items()}


def shortages(stock: Stock, lines: Iterable[Line]) -> dict[str, int]:
    return {sku: need - stock.get(sku, 0) for sku, need in demand(lines).items() if need > stock.get(sku, 0)}


def can_fill(stock: Stock, order: Order) -> bool:
    return not shortages(stock, order.lines)


def taken(stock: Stock, order: Order) -> dict[str, int]:
    if missing := shortages(stock, order.lines):
        raise ValueError(f"{order.id}: not enough stock for {', '.join(sorted(missing))}")
    return dict(Counter(stock) - Counter(demand(order.lines)))


def filled(stock: Stock, orders: Iterable[Order]) -> Filled:
    def step(state: Filled, order: Order) -> Filled:
        left, done = state
        return (taken(left, order), (*done, order)) if can_fill(left, order) else state

    start: Filled = (dict(stock), ())
    return reduce(step, sorted(orders, key=lambda order: order.placed), start)


def daily_demand(orders: Iterable[Order], sku: str, today: date, days: int = 30) -> float:
    since = today - timedelta(days=days)
    sold = (line.qty for line in all_lines(o for o in orders if o.placed > since) if line.sku == sku)
    return sum(sold) / days


def reorder_point(per_day: float, lead_days: int, safety: int = 0) -> int:
    return ceil(per_day * lead_days) + safety


def order_quantity(per_year: int, order_cost: Decimal, holding_cost: Decimal) -> int:
    return round(sqrt(2 * per_year * float(order_cost / holding_cost))) if holding_cost else 0


def low_stock(stock: Stock, floors: Stock, default: int = 5) -> tuple[str, ...]:
    return tuple(sorted(sku for sku, qty in stock.items() if qty <= floors.get(sku, default)))


def days_left(stock: Stock, sku: str, per_day: float) -> int | None:
    return int(stock.get(sku, 0) / per_day) if per_day > 0 else None


def stock_value(stock: Stock, products: Iterable[Product]) -> Decimal:
    return total(product.price * stock.get(product.sku, 0) for product in products)


def count_moves(stock: Stock, counts: Stock, day: date) -> tuple[Move, ...]:
    return tuple(
        Move(sku, qty - stock.get(sku, 0), day, reason="recount")
        for sku, qty in sorted(counts.items())
        if qty != stock.get(sku, 0)
    )


def transfer(sku: str, qty: int, day: date, source: str, target: str) -> tuple[Move, Move]:
    return Move(sku, -qty, day, source, "transfer"), Move(sku, qty, day, target, "transfer")


def dead_stock(stock: Stock, orders: Iterable[Order]) -> tuple[str, ...]:
    sold = demand(all_lines(orders))
    return tuple(sorted(sku for sku, qty in stock.items() if qty > 0 and sku not in sold))

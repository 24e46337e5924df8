from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from acme.core import ZERO, counted, grouped, keyed, summed
from acme.models import Customer, Order, Tier

TIER_FLOOR: tuple[tuple[Tier, Decimal], ...] = (
    ("gold", Decimal(5000)),
    ("silver", Decimal(1000)),
    ("standard", ZERO),
)


def customers_by_id(customers: Iterable[Customer]) -> dict[str, Customer]:
    return keyed(customers, lambda customer: customer.id)


def customers_by_country(customers: Iterable[Customer]) -> dict[str | None, tuple[Customer, ...]]:
    return grouped(customers, lambda customer: customer.country)


def customer_by_email(customers: Iterable[Customer], email: str) -> Customer | None:
    wanted = normal_email(email)
    return next((c for c in customers if normal_email(c.email) == wanted), None)


def normal_email(email: str) -> str:
    return email.strip().lower()


def domain(email: str) -> str:
    return normal_email(email).rpartition("@")[2]


def initials(name: str) -> str:
    return "".join(part[0].upper() for part in name.split())


def spend(orders: Iterable[Order]) -> dict[str, Decimal]:
    kept = (order for order in orders if order.status != "cancelled")
    return summed(kept, lambda order: order.customer_id, lambda order: order.total)


def tier_for(spent: Decimal) -> Tier:
    return next(tier for tier, floor in TIER_FLOOR if spent >= floor)


def retiered(customers: Iterable[Customer], orders: Iterable[Order]) -> tuple[Customer, ...]:
    spent = spend(orders)
    return tuple(replace(c, tier=tier_for(spent.get(c.id, ZERO))) for c in customers)


def last_order_dates(orders: Iterable[Order]) -> dict[str, date]:
    return {
        customer_id: max(order.placed for order in group)
        for customer_id, group in grouped(orders, lambda order: order.customer_id).items()
    }


def dormant(customers: Iterable[Customer], orders: Iterable[Order], today: date, days: int = 180) -> tuple[Customer, ...]:
    seen = last_order_dates(orders)
    limit = today - timedelta(days=days)
    return tuple(c for c in customers if seen.get(c.id, c.joined) < limit)


def new_customers(customers: Iterable[Customer], since: date) -> tuple[Customer, ...]:
    return tuple(c for c in customers if c.joined >= since)


def repeat_customers(orders: Iterable[Order]) -> frozenset[str]:
    return frozenset(k for k, n in counted(orders, lambda order: order.customer_id).items() if n > 1)


def repeat_rate(orders: Iterable[Order]) -> float:
    counts = counted(orders, lambda order: order.customer_id)
    return sum(n > 1 for n in counts.values()) / len(counts) if counts else 0.0


def duplicates(customers: Iterable[Customer]) -> tuple[tuple[Customer, ...], ...]:
    return tuple(g for g in grouped(customers, lambda c: normal_email(c.email)).values() if len(g) > 1)


def merged_customers(keep: Customer, drop: Customer) -> Customer:
    return replace(keep, joined=min(keep.joined, drop.joined), address=keep.address or drop.address)


def reassigned(orders: Iterable[Order], old_id: str, new_id: str) -> tuple[Order, ...]:
    return tuple(replace(o, customer_id=new_id) if o.customer_id == old_id else o for o in orders)


def mailing_list(customers: Iterable[Customer], tiers: frozenset[Tier] = frozenset({"silver", "gold"})) -> tuple[str, ...]:
    return tuple(sorted({normal_email(c.email) for c in customers if c.tier in tiers}))

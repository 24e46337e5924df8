from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any

from acme.core import counted, grouped, is_sorted, unique
from acme.models import Order, Status

Handler = Callable[["Event"], None]
Handlers = tuple[tuple[str, Handler], ...]


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    subject: str
    at: datetime
    data: tuple[tuple[str, Any], ...] = ()

    def get(self, key: str, default: Any = None) -> Any:
        return dict(self.data).get(key, default)


def event(kind: str, subject: str, at: datetime, **data: Any) -> Event:
    return Event(kind, subject, at, tuple(sorted(data.items())))


def placed(order: Order, at: datetime) -> Event:
    return event("order.placed", order.id, at, customer=order.customer_id, total=order.total)


def moved(order: Order, status: Status, at: datetime) -> Event:
    return event("order.moved", order.id, at, old=order.status, new=status)


def paid(order_id: str, amount: Decimal, at: datetime) -> Event:
    return event("payment.received", order_id, at, amount=amount)


def subscribed(handlers: Handlers, pattern: str, handler: Handler) -> Handlers:
    return (*handlers, (pattern, handler))


def unsubscribed(handlers: Handlers, handler: Handler) -> Handlers:
    return tuple((pattern, h) for pattern, h in handlers if h is not handler)


def fits(pattern: str, kind: str) -> bool:
    return pattern in ("*", kind) or (pattern.endswith(".*") and kind.startswith(pattern[:-1]))


def publish(handlers: Handlers, item: Event) -> int:
    targets = tuple(handler for pattern, handler in handlers if fits(pattern, item.kind))
    return sum(handler(item) is None for handler in targets)


def publish_all(handlers: Handlers, events: Iterable[Event]) -> int:
    return sum(publish(handlers, item) for item in sorted(events, key=lambda e: e.at))


def applied(order: Order, item: Event) -> Order:
    match item.kind:
        case "order.moved":
            return order.with_status(item.get("new"))
        case "payment.received" if item.get("amount") >= order.total:
            return order.with_status("paid")
        case "order.coupon":
            return replace(order, coupon=item.get("code"))
        case _:
            return order


def replayed(order: Order, events: Iterable[Event]) -> Order:
    mine = sorted((e for e in events if e.subject == order.id), key=lambda e: e.at)
    return reduce(applied, mine, order)


def history(events: Iterable[Event], subject: str) -> tuple[Event, ...]:
    return tuple(sorted((e for e in events if e.subject == subject), key=lambda e: e.at))


def between(events: Iterable[Event], start: datetime, end: datetime) -> tuple[Event, ...]:
    return tuple(e for e in events if start <= e.at < end)


def kinds(events: Iterable[Event]) -> dict[str, int]:
    return dict(sorted(counted(events, lambda e: e.kind).items()))


def subjects(events: Iterable[Event]) -> tuple[str, ...]:
    return unique(e.subject for e in events)


def latest(events: Iterable[Event]) -> dict[str, Event]:
    return {k: max(g, key=lambda e: e.at) for k, g in grouped(events, lambda e: e.subject).items()}


def in_order(events: Iterable[Event]) -> bool:
    return is_sorted(e.at for e in events)


def waiting_hours(events: Iterable[Event], start: str, end: str) -> dict[str, float]:
    groups = grouped(events, lambda e: e.subject)
    spans = {k: (when(g, start), when(g, end)) for k, g in groups.items()}
    return {k: (b - a).total_seconds() / 3600 for k, (a, b) in spans.items() if a and b}


def when(events: Iterable[Event], kind: str) -> datetime | None:
    return min((e.at for e in events if e.kind == kind), default=None)


def logged(item: Event) -> str:
    return " ".join((item.at.isoformat(), item.kind, item.subject, *(f"{k}={v}" for k, v in item.data)))

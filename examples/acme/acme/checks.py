import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

from acme.catalog import is_sku
from acme.core import grouped
from acme.models import Customer, Order, Payment, Product

T = TypeVar("T")

Check = Callable[[Any], str | None]

EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", re.IGNORECASE)
POSTCODE = {"DE": re.compile(r"^\d{5}$"), "NL": re.compile(r"^\d{4} ?[A-Z]{2}$"), "AT": re.compile(r"^\d{4}$")}


@dataclass(frozen=True, slots=True)
class Problem:
    id: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.id}.{self.field}: {self.message}"


def required(value: Any) -> str | None:
    return "is missing" if value in (None, "", ()) else None


def positive(value: Decimal | int) -> str | None:
    return None if value > 0 else "must be above zero"


def not_negative(value: Decimal | int) -> str | None:
    return None if value >= 0 else "must not be negative"


def at_most(limit: Decimal | int) -> Check:
    return lambda value: None if value <= limit else f"must be at most {limit}"


def one_of(*choices: str) -> Check:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def shorter_than(limit: int) -> Check:
    return lambda value: None if len(value) < limit else f"must have fewer than {limit} characters"


def matches(pattern: re.Pattern[str], message: str) -> Check:
    return lambda value: None if pattern.match(value) else message


def not_after(limit: date) -> Check:
    return lambda value: None if value <= limit else f"must not be after {limit}"


def optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def all_of(*checks: Check) -> Check:
    return lambda value: next((problem for check in checks if (problem := check(value))), None)


def email_check(value: str) -> str | None:
    return matches(EMAIL, "is not an email address")(value)


def sku_check(value: str) -> str | None:
    return None if is_sku(value) else "is not a stock number"


def postcode_ok(postcode: str, country: str) -> bool:
    return country not in POSTCODE or POSTCODE[country].match(postcode) is not None


def problems(item: Any, checks: Mapping[str, Check]) -> tuple[Problem, ...]:
    name = str(getattr(item, "id", None) or getattr(item, "sku", "?"))
    return tuple(
        Problem(name, field, message)
        for field, check in checks.items()
        if (message := check(getattr(item, field)))
    )


PRODUCT: dict[str, Check] = {
    "sku": sku_check,
    "name": all_of(required, shorter_than(80)),
    "price": positive,
    "weight": all_of(not_negative, at_most(100)),
}
CUSTOMER: dict[str, Check] = {"id": required, "name": required, "email": email_check}
PAYMENT: dict[str, Check] = {"order_id": required, "method": one_of("card", "transfer", "cash", "voucher")}


def product_problems(product: Product) -> tuple[Problem, ...]:
    return problems(product, PRODUCT)


def customer_problems(customer: Customer) -> tuple[Problem, ...]:
    bad = customer.address and not postcode_ok(customer.address.postcode, customer.address.country)
    return (*problems(customer, CUSTOMER), *((Problem(customer.id, "address", "has a bad postcode"),) if bad else ()))


def payment_problems(payment: Payment, today: date) -> tuple[Problem, ...]:
    return problems(payment, PAYMENT | {"paid": not_after(today)})


def order_problems(order: Order, customer_ids: frozenset[str], skus: frozenset[str]) -> tuple[Problem, ...]:
    found = (
        (not order.lines, "lines", "is empty"),
        (order.customer_id not in customer_ids, "customer_id", "is unknown"),
        *((line.sku not in skus, "lines", f"has unknown {line.sku}") for line in order.lines),
        *((line.qty <= 0, "lines", f"has no quantity of {line.sku}") for line in order.lines),
    )
    return tuple(Problem(order.id, field, message) for bad, field, message in found if bad)


def split_valid(items: Iterable[T], check: Callable[[T], tuple[Problem, ...]]) -> tuple[tuple[T, ...], tuple[Problem, ...]]:
    checked = tuple((item, check(item)) for item in items)
    return tuple(i for i, found in checked if not found), tuple(p for _, found in checked for p in found)


def by_field(found: Iterable[Problem]) -> dict[str, tuple[Problem, ...]]:
    return grouped(found, lambda problem: problem.field)


def ensured(item: T, check: Callable[[T], tuple[Problem, ...]]) -> T:
    if found := check(item):
        raise ValueError("; ".join(map(str, found)))
    return item

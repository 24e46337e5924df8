from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial

from acme.core import ZERO, allocate, find, money, percent, total
from acme.models import Customer, Line, Order, Tier

Rule = Callable[[Order], Decimal]

TIER_RATE: dict[Tier, Decimal] = {"standard": ZERO, "silver": Decimal(3), "gold": Decimal(7)}


@dataclass(frozen=True, slots=True)
class Coupon:
    code: str
    rate: Decimal
    start: date
    end: date
    floor: Decimal = ZERO

    def live(self, day: date) -> bool:
        return self.start <= day <= self.end


def no_discount(order: Order) -> Decimal:
    return ZERO


def percent_off(rate: Decimal) -> Rule:
    return lambda order: percent(order.total, rate)


def amount_off(amount: Decimal, floor: Decimal = ZERO) -> Rule:
    return lambda order: min(amount, order.total) if order.total >= floor else ZERO


def sku_off(sku: str, rate: Decimal) -> Rule:
    return lambda order: total(percent(line.amount, rate) for line in order.lines if line.sku == sku)


def buy_get(sku: str, buy: int, free: int) -> Rule:
    return lambda order: total(free_units(line, buy, free) * line.price for line in order.lines if line.sku == sku)


def free_units(line: Line, buy: int, free: int) -> int:
    whole, rest = divmod(line.qty, buy + free)
    return whole * free + max(0, rest - buy)


def bundle_off(skus: frozenset[str], amount: Decimal) -> Rule:
    return lambda order: amount if skus <= {line.sku for line in order.lines} else ZERO


def tier_off(customer: Customer) -> Rule:
    return percent_off(TIER_RATE[customer.tier])


def coupon_off(coupons: Iterable[Coupon], order: Order) -> Decimal:
    coupon = find(coupons, lambda c: c.code == order.coupon)
    if coupon is None or not coupon.live(order.placed) or order.total < coupon.floor:
        return ZERO
    return percent(order.total, coupon.rate)


def coupon_rule(coupons: Iterable[Coupon]) -> Rule:
    return partial(coupon_off, tuple(coupons))


def best_of(*rules: Rule) -> Rule:
    return lambda order: max((rule(order) for rule in rules), default=ZERO)


def sum_of(*rules: Rule) -> Rule:
    return lambda order: total(rule(order) for rule in rules)


def capped(rule: Rule, rate: Decimal) -> Rule:
    return lambda order: min(rule(order), percent(order.total, rate))


def on_days(rule: Rule, weekdays: frozenset[int]) -> Rule:
    return lambda order: rule(order) if order.placed.weekday() in weekdays else ZERO


def above(rule: Rule, floor: Decimal) -> Rule:
    return lambda order: rule(order) if order.total >= floor else ZERO


def discount(order: Order, rule: Rule) -> Decimal:
    return money(min(rule(order), order.total))


def discounted(order: Order, rule: Rule) -> Decimal:
    return order.total - discount(order, rule)


def discount_lines(order: Order, rule: Rule) -> dict[str, Decimal]:
    shares = allocate(discount(order, rule), (line.amount for line in order.lines))
    return {line.sku: share for line, share in zip(order.lines, shares)}


def explain(order: Order, rules: Mapping[str, Rule]) -> tuple[tuple[str, Decimal], ...]:
    return tuple((name, cut) for name, rule in rules.items() if (cut := discount(order, rule)) > 0)


def live_coupons(coupons: Iterable[Coupon], day: date) -> tuple[str, ...]:
    return tuple(sorted(coupon.code for coupon in coupons if coupon.live(day)))


def coupon_use(orders: Iterable[Order]) -> dict[str, int]:
    codes = [order.coupon for order in orders if order.coupon]
    return {code: codes.count(code) for code in sorted(set(codes))}

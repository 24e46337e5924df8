from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal

from acme.core import ZERO, find, grouped, money, summed, total
from acme.dates import add_months, age_bucket
from acme.models import Method, Order, Payment

FEE: dict[Method, tuple[Decimal, Decimal]] = {
    "card": (Decimal("0.25"), Decimal("1.4")),
    "transfer": (Decimal("0.10"), ZERO),
    "cash": (ZERO, ZERO),
    "voucher": (ZERO, Decimal("0.5")),
}


def paid_by_order(payments: Iterable[Payment]) -> dict[str, Decimal]:
    return summed(payments, lambda payment: payment.order_id, lambda payment: payment.amount)


def paid_by_method(payments: Iterable[Payment]) -> dict[Method, Decimal]:
    return summed(payments, lambda payment: payment.method, lambda payment: payment.amount)


def paid(order: Order, payments: Iterable[Payment]) -> Decimal:
    return total(payment.amount for payment in payments if payment.order_id == order.id)


def balance(order: Order, payments: Iterable[Payment]) -> Decimal:
    return order.total - paid(order, payments)


def balances(orders: Iterable[Order], payments: Iterable[Payment]) -> dict[str, Decimal]:
    settled = paid_by_order(payments)
    return {order.id: order.total - settled.get(order.id, ZERO) for order in orders}


def is_settled(order: Order, payments: Iterable[Payment]) -> bool:
    return balance(order, payments) <= 0


def overpaid(orders: Iterable[Order], payments: Iterable[Payment]) -> dict[str, Decimal]:
    return {order_id: -left for order_id, left in balances(orders, payments).items() if left < 0}


def mark_paid(orders: Iterable[Order], payments: Iterable[Payment]) -> tuple[Order, ...]:
    left = balances(batch := tuple(orders), payments)
    return tuple(o.with_status("paid") if o.status == "open" and left[o.id] <= 0 else o for o in batch)


def fee(payment: Payment) -> Decimal:
    fixed, rate = FEE[payment.method]
    return money(fixed + payment.amount * rate / 100)


def fees(payments: Iterable[Payment]) -> Decimal:
    return total(fee(payment) for payment in payments)


def net_income(payments: Iterable[Payment]) -> Decimal:
    batch = tuple(payments)
    return total(payment.amount for payment in batch) - fees(batch)


def refund(payment: Payment, amount: Decimal, day: date) -> Payment:
    if not ZERO < amount <= payment.amount:
        raise ValueError(f"{payment.id}: cannot refund {amount} of {payment.amount}")
    return replace(payment, id=f"{payment.id}-R", amount=-amount, paid=day)


def installments(amount: Decimal, number: int, start: date) -> tuple[tuple[date, Decimal], ...]:
    part = money(amount / number)
    rest = amount - part * (number - 1)
    return tuple((add_months(start, n), rest if n == number - 1 else part) for n in range(number))


def unmatched(payments: Iterable[Payment], orders: Iterable[Order]) -> tuple[Payment, ...]:
    known = {order.id for order in orders}
    return tuple(payment for payment in payments if payment.order_id not in known)


def match_by_amount(payment: Payment, orders: Iterable[Order]) -> Order | None:
    return find(orders, lambda order: order.status == "open" and order.total == payment.amount)


def aging(orders: Iterable[Order], payments: Iterable[Payment], today: date) -> dict[str, Decimal]:
    left = balances(batch := tuple(orders), payments)
    owing = (order for order in batch if left[order.id] > 0)
    return summed(owing, lambda o: age_bucket((today - o.placed).days), lambda o: left[o.id])


def double_charges(payments: Iterable[Payment]) -> tuple[tuple[Payment, ...], ...]:
    same = grouped(payments, lambda p: (p.order_id, p.amount, p.paid))
    return tuple(group for group in same.values() if len(group) > 1)


def cash_by_day(payments: Iterable[Payment]) -> dict[date, Decimal]:
    cash = (payment for payment in payments if payment.method == "cash")
    return dict(sorted(summed(cash, lambda p: p.paid, lambda p: p.amount).items()))


def late_fee(amount: Decimal, overdue: int, yearly: Decimal = Decimal(9)) -> Decimal:
    return money(amount * yearly * overdue / 36500) if overdue > 0 else ZERO


def reconcile(ledger: Mapping[str, Decimal], bank: Mapping[str, Decimal]) -> dict[str, Decimal]:
    keys = sorted(ledger.keys() | bank.keys())
    return {k: gap for k in keys if (gap := bank.get(k, ZERO) - ledger.get(k, ZERO))}

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import reduce
from statistics import mean

from acme.core import ZERO, grouped, keyed, money, total
from acme.dates import add_workdays
from acme.models import Address, Order, Product, Shipment

Bin = tuple[Decimal, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Carrier:
    name: str
    base: Decimal
    per_kg: Decimal
    days: int
    max_weight: Decimal = Decimal(30)
    countries: frozenset[str] = frozenset({"DE"})


def order_weight(order: Order, products: Iterable[Product]) -> Decimal:
    by_sku = keyed(products, lambda p: p.sku)
    return total(by_sku[line.sku].weight * line.qty for line in order.lines if line.sku in by_sku)


def rate(carrier: Carrier, weight: Decimal) -> Decimal:
    return money(carrier.base + carrier.per_kg * weight)


def serves(carrier: Carrier, address: Address, weight: Decimal) -> bool:
    return address.country in carrier.countries and weight <= carrier.max_weight


def options(carriers: Iterable[Carrier], address: Address, weight: Decimal) -> tuple[Carrier, ...]:
    return tuple(carrier for carrier in carriers if serves(carrier, address, weight))


def cheapest_carrier(carriers: Iterable[Carrier], address: Address, weight: Decimal) -> Carrier | None:
    return min(options(carriers, address, weight), key=lambda c: (rate(c, weight), c.days), default=None)


def fastest_carrier(carriers: Iterable[Carrier], address: Address, weight: Decimal) -> Carrier | None:
    return min(options(carriers, address, weight), key=lambda c: (c.days, rate(c, weight)), default=None)


def shipping_cost(order: Order, carrier: Carrier, weight: Decimal, free_from: Decimal | None = None) -> Decimal:
    if free_from is not None and order.total >= free_from:
        return ZERO
    return rate(carrier, weight)


def due(shipment: Shipment, carriers: Mapping[str, Carrier]) -> date:
    return add_workdays(shipment.shipped, carriers[shipment.carrier].days)


def in_transit(shipments: Iterable[Shipment]) -> tuple[Shipment, ...]:
    return tuple(shipment for shipment in shipments if shipment.delivered is None)


def late(shipments: Iterable[Shipment], carriers: Mapping[str, Carrier], today: date) -> tuple[Shipment, ...]:
    return tuple(s for s in shipments if (s.delivered or today) > due(s, carriers))


def on_time_rate(shipments: Iterable[Shipment], carriers: Mapping[str, Carrier]) -> float:
    done = tuple(s.delivered <= due(s, carriers) for s in shipments if s.delivered)
    return sum(done) / len(done) if done else 0.0


def days_by_carrier(shipments: Iterable[Shipment]) -> dict[str, float]:
    done = ((s.carrier, s.days) for s in shipments if s.days is not None)
    return {name: mean(days for _, days in group) for name, group in grouped(done, lambda pair: pair[0]).items()}


def shipments_by_order(shipments: Iterable[Shipment]) -> dict[str, tuple[Shipment, ...]]:
    return grouped(shipments, lambda shipment: shipment.order_id)


def unshipped(orders: Iterable[Order], shipments: Iterable[Shipment]) -> tuple[Order, ...]:
    sent = {shipment.order_id for shipment in shipments}
    return tuple(order for order in orders if order.status == "paid" and order.id not in sent)


def packed(weights: Mapping[str, Decimal], limit: Decimal) -> tuple[Bin, ...]:
    def place(bins: tuple[Bin, ...], item: tuple[str, Decimal]) -> tuple[Bin, ...]:
        sku, weight = item
        slot = next((i for i, (load, _) in enumerate(bins) if load + weight <= limit), None)
        if slot is None:
            return (*bins, (weight, (sku,)))
        load, skus = bins[slot]
        return (*bins[:slot], (load + weight, (*skus, sku)), *bins[slot + 1 :])

    return reduce(place, sorted(weights.items(), key=lambda pair: -pair[1]), ())


def check_digit(digits: str) -> int:
    odd, even = sum(map(int, digits[-1::-2])), sum(map(int, digits[-2::-2]))
    return -(odd * 3 + even) % 10


def tracking_code(prefix: str, number: int) -> str:
    digits = f"{number:09d}"
    return f"{prefix}{digits}{check_digit(digits)}"


def is_tracking_code(code: str) -> bool:
    digits = code.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return len(digits) == 10 and digits.isdigit() and check_digit(digits[:-1]) == int(digits[-1])


def pickup_dates(start: date, weekdays: frozenset[int], number: int) -> tuple[date, ...]:
    window = (start + timedelta(days=n) for n in range(7 * number + 7))
    return tuple(day for day in window if day.weekday() in weekdays)[:number]


def address_lines(address: Address) -> tuple[str, ...]:
    return address.street, f"{address.postcode} {address.city}", address.country

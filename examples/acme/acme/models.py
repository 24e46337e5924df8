from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Literal

from acme.core import money, total

Tier = Literal["standard", "silver", "gold"]
Status = Literal["open", "paid", "shipped", "closed", "cancelled"]
Method = Literal["card", "transfer", "cash", "voucher"]


@dataclass(frozen=True, slots=True)
class Address:
    street: str
    city: str
    postcode: str
    country: str = "DE"

    @property
    def label(self) -> str:
        return f"{self.street}, {self.postcode} {self.city}, {self.country}"


@dataclass(frozen=True, slots=True)
class Customer:
    id: str
    name: str
    email: str
    joined: date
    tier: Tier = "standard"
    address: Address | None = None

    @property
    def country(self) -> str | None:
        return self.address.country if self.address else None


@dataclass(frozen=True, slots=True)
class Product:
    sku: str
    name: str
    price: Decimal
    weight: Decimal = Decimal("0.50")
    category: str = "general"
    tax_class: str = "standard"


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    qty: int
    price: Decimal

    @property
    def amount(self) -> Decimal:
        return money(self.qty * self.price)


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    customer_id: str
    placed: date
    lines: tuple[Line, ...] = ()
    status: Status = "open"
    coupon: str | None = None

    @property
    def total(self) -> Decimal:
        return total(line.amount for line in self.lines)

    @property
    def units(self) -> int:
        return sum(line.qty for line in self.lines)

    def with_status(self, status: Status) -> "Order":
        return replace(self, status=status)

    def with_lines(self, *lines: Line) -> "Order":
        return replace(self, lines=lines)


@dataclass(frozen=True, slots=True)
class Payment:
    id: str
    order_id: str
    amount: Decimal
    paid: date
    method: Method = "card"


@dataclass(frozen=True, slots=True)
class Shipment:
    id: str
    order_id: str
    carrier: str
    shipped: date
    delivered: date | None = None
    weight: Decimal = Decimal("1.00")

    @property
    def days(self) -> int | None:
        return (self.delivered - self.shipped).days if self.delivered else None

from acme.core import ZERO, grouped, keyed, money, pipe, total
from acme.models import Address, Customer, Line, Order, Payment, Product, Shipment

__all__ = [
    "ZERO",
    "Address",
    "Customer",
    "Line",
    "Order",
    "Payment",
    "Product",
    "Shipment",
    "grouped",
    "keyed",
    "money",
    "pipe",
    "total",
]

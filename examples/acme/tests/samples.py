from datetime import date
from decimal import Decimal

from acme.models import Address, Customer, Line, Order, Payment, Product, Shipment

PRODUCTS: tuple[Product, ...] = (
    Product("TEA-001", "Green tea", Decimal("4.50"), category="tea", tax_class="reduced"),
    Product("TEA-002", "Black tea", Decimal("3.90"), category="tea", tax_class="reduced"),
    Product("CUP-100", "Blue cup", Decimal("8.00"), Decimal("0.30"), category="ware"),
    Product("POT-200", "Iron pot", Decimal("49.00"), Decimal("2.10"), category="ware"),
)

CUSTOMERS: tuple[Customer, ...] = (
    Customer("c1", "Ada Long", "ada@mail.test", date(2023, 1, 5), address=Address("Hill 1", "Bonn", "53111")),
    Customer("c2", "Ben Short", "Ben@Mail.test ", date(2023, 6, 1), address=Address("Quay 2", "Delft", "2611 AB", "NL")),
    Customer("c3", "Cy Dean", "cy@mail.test", date(2024, 2, 9)),
)

ORDERS: tuple[Order, ...] = (
    Order("o1", "c1", date(2024, 1, 10), (Line("TEA-001", 2, Decimal("4.50")), Line("CUP-100", 1, Decimal("8.00"))), "paid"),
    Order("o2", "c2", date(2024, 2, 3), (Line("POT-200", 1, Decimal("49.00")),), "shipped", coupon="SPRING"),
    Order("o3", "c1", date(2024, 2, 20), (Line("TEA-002", 5, Decimal("3.90")),)),
    Order("o4", "c3", date(2024, 3, 1), (Line("TEA-001", 1, Decimal("4.50")),), "cancelled"),
)

PAYMENTS: tuple[Payment, ...] = (
    Payment("p1", "o1", Decimal("17.00"), date(2024, 1, 11)),
    Payment("p2", "o2", Decimal("40.00"), date(2024, 2, 4), "transfer"),
    Payment("p3", "o9", Decimal("5.00"), date(2024, 2, 5), "cash"),
)

SHIPMENTS: tuple[Shipment, ...] = (
    Shipment("s1", "o2", "swift", date(2024, 2, 5), date(2024, 2, 7)),
    Shipment("s2", "o7", "snail", date(2024, 2, 5), date(2024, 2, 19)),
    Shipment("s3", "o8", "swift", date(2024, 2, 26)),
)

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase, main

from acme import cache, catalog, checks, dates, events, exports, imports, invoices, payments, reports, retry, returns, shipping
from tests.samples import CUSTOMERS, ORDERS, PAYMENTS, PRODUCTS, SHIPMENTS


class ShippingTest(TestCase):
    carriers = {
        "swift": shipping.Carrier("swift", Decimal(5), Decimal(1), 2),
        "snail": shipping.Carrier("snail", Decimal(2), Decimal(1), 6),
    }

    def test_choice(self) -> None:
        home = CUSTOMERS[0].address
        self.assertEqual(shipping.cheapest_carrier(self.carriers.values(), home, Decimal(2)).name, "snail")
        self.assertEqual(shipping.fastest_carrier(self.carriers.values(), home, Decimal(2)).name, "swift")

    def test_late(self) -> None:
        found = shipping.late(SHIPMENTS, self.carriers, date(2024, 2, 27))
        self.assertEqual([s.id for s in found], ["s2"])

    def test_tracking(self) -> None:
        self.assertTrue(shipping.is_tracking_code(shipping.tracking_code("AC", 12345)))

    def test_packed(self) -> None:
        bins = shipping.packed({"a": Decimal(6), "b": Decimal(5), "c": Decimal(4)}, Decimal(10))
        self.assertEqual([skus for _, skus in bins], [("a", "c"), ("b",)])


class MoneyTest(TestCase):
    def test_balances(self) -> None:
        self.assertEqual(payments.balances(ORDERS, PAYMENTS)["o2"], Decimal("9.00"))
        self.assertEqual([p.id for p in payments.unmatched(PAYMENTS, ORDERS)], ["p3"])

    def test_installments(self) -> None:
        parts = payments.installments(Decimal("100.00"), 3, date(2024, 1, 31))
        self.assertEqual((sum(a for _, a in parts), parts[1][0]), (Decimal("100.00"), date(2024, 2, 29)))

    def test_invoices(self) -> None:
        batch = invoices.invoice_batch(ORDERS, PRODUCTS, date(2024, 3, 1))
        self.assertEqual([i.number for i in batch], ["INV-2024-00001", "INV-2024-00002"])
        self.assertEqual(batch[1].gross, Decimal("58.31"))
        self.assertIn("Ada Long", invoices.rendered(batch[0], CUSTOMERS[0]))

    def test_returns(self) -> None:
        item = returns.Return("o2", "POT-200", 1, date(2024, 2, 10))
        self.assertEqual(returns.refund_amount(item, ORDERS[1]), Decimal("44.10"))


class ReportTest(TestCase):
    def test_months(self) -> None:
        self.assertEqual(reports.revenue_by_month(ORDERS), {"2024-01": Decimal("17.00"), "2024-02": Decimal("68.50"), "2024-03": Decimal("0.00")})

    def test_best(self) -> None:
        self.assertEqual(reports.best_sellers(ORDERS, 2), (("TEA-002", 5), ("TEA-001", 3)))
        self.assertEqual(reports.abc_classes(ORDERS)["POT-200"], "A")

    def test_search(self) -> None:
        self.assertEqual([p.sku for p in catalog.search(PRODUCTS, "black tea")], ["TEA-002", "TEA-001"])

    def test_dates(self) -> None:
        self.assertEqual(dates.add_workdays(date(2024, 2, 2), 2), date(2024, 2, 6))
        self.assertEqual([dates.age_bucket(n) for n in (5, 45, 120)], ["0-30", "30-60", "90+"])


class EdgeTest(TestCase):
    def test_round_trip(self) -> None:
        with TemporaryDirectory() as folder:
            path = exports.write_text(Path(folder) / "p.csv", exports.to_csv(map(exports.product_row, PRODUCTS)))
            self.assertEqual(imports.load_products(path), PRODUCTS)

    def test_bad_rows(self) -> None:
        good, bad = imports.load(({"sku": "A", "qty": "1", "price": "1,50"}, {"sku": "B"}), imports.line_of)
        self.assertEqual((good[0].price, sorted(bad)), (Decimal("1.50"), [3]))

    def test_checks(self) -> None:
        self.assertEqual(checks.split_valid(PRODUCTS, checks.product_problems)[1], ())
        self.assertEqual(len(checks.order_problems(ORDERS[1], frozenset(), frozenset())), 2)

    def test_cache(self) -> None:
        box: cache.Cache[int] = cache.Cache(size=2, clock=lambda: 0.0)
        square = cache.cached(box)(lambda n: n * n)
        self.assertEqual(([square(n) for n in (2, 2, 3)], box.stats.hits), ([4, 4, 9], 1))

    def test_retry(self) -> None:
        waits: list[float] = []
        self.assertRaises(retry.GaveUp, retry.retry, lambda: int(open("/nowhere").read()), retry.Policy(errors=(OSError,)), waits.append)
        self.assertEqual(waits, [0.1, 0.2, 0.4])

    def test_events(self) -> None:
        log = (events.paid("o3", Decimal("19.50"), datetime(2024, 3, 1)), events.moved(ORDERS[2], "shipped", datetime(2024, 3, 2)))
        self.assertEqual(events.replayed(ORDERS[2], log).status, "shipped")


if __name__ == "__main__":
    main()

from datetime import date
from decimal import Decimal
from unittest import TestCase, main

from acme import core, customers, discounts, orders, prices, stock, taxes
from tests.samples import CUSTOMERS, ORDERS, PRODUCTS


class CoreTest(TestCase):
    def test_allocate_keeps_the_amount(self) -> None:
        parts = core.allocate(Decimal("10.00"), (1, 1, 1))
        self.assertEqual((sum(parts), len(parts)), (Decimal("10.00"), 3))

    def test_pipe_runs_in_order(self) -> None:
        self.assertEqual(core.pipe(3, lambda n: n + 1, lambda n: n * 2), 8)

    def test_chunks(self) -> None:
        self.assertEqual(tuple(core.chunks(range(5), 2)), ((0, 1), (2, 3), (4,)))


class OrderTest(TestCase):
    def test_totals(self) -> None:
        self.assertEqual([o.total for o in ORDERS], [Decimal(t) for t in ("17.00", "49.00", "19.50", "4.50")])

    def test_grouping(self) -> None:
        self.assertEqual({k: len(g) for k, g in orders.orders_by_customer(ORDERS).items()}, {"c1": 2, "c2": 1, "c3": 1})

    def test_moves(self) -> None:
        self.assertEqual(orders.moved(ORDERS[2], "paid").status, "paid")
        self.assertRaises(ValueError, orders.moved, ORDERS[3], "paid")

    def test_split_by_stock(self) -> None:
        ready, waiting = orders.split_by_stock(ORDERS[0], {"TEA-001": 9})
        self.assertEqual((ready.units, waiting.units, waiting.id), (2, 1, "o1-B"))

    def test_tiers(self) -> None:
        self.assertEqual(customers.tier_for(Decimal(1200)), "silver")
        self.assertEqual(customers.dormant(CUSTOMERS, ORDERS, date(2024, 8, 10), 180)[0].id, "c2")


class StockTest(TestCase):
    def test_taken(self) -> None:
        self.assertEqual(stock.taken({"TEA-001": 3, "CUP-100": 5}, ORDERS[0]), {"TEA-001": 1, "CUP-100": 4})
        self.assertRaises(ValueError, stock.taken, {}, ORDERS[0])

    def test_filled_takes_oldest_first(self) -> None:
        left, done = stock.filled({"TEA-001": 2, "CUP-100": 1}, (ORDERS[3], ORDERS[0]))
        self.assertEqual(([o.id for o in done], left), (["o1"], {}))


class PriceTest(TestCase):
    def test_breaks(self) -> None:
        steps = (prices.Break(10, Decimal("4.00")), prices.Break(50, Decimal("3.50")))
        found = [prices.break_price(steps, qty, Decimal("4.50")) for qty in (1, 10, 60)]
        self.assertEqual(found, [Decimal("4.50"), Decimal("4.00"), Decimal("3.50")])

    def test_rules(self) -> None:
        rule = discounts.best_of(discounts.percent_off(Decimal(10)), discounts.amount_off(Decimal("1.00")))
        self.assertEqual(discounts.discounted(ORDERS[1], rule), Decimal("44.10"))

    def test_buy_get(self) -> None:
        self.assertEqual(discounts.discount(ORDERS[2], discounts.buy_get("TEA-002", 2, 1)), Decimal("3.90"))

    def test_coupon_window(self) -> None:
        spring = discounts.Coupon("SPRING", Decimal(10), date(2024, 2, 1), date(2024, 3, 1))
        self.assertEqual(discounts.coupon_off((spring,), ORDERS[1]), Decimal("4.90"))

    def test_tax(self) -> None:
        self.assertEqual(taxes.order_tax(ORDERS[0], PRODUCTS, "DE"), Decimal("2.15"))
        self.assertEqual(taxes.filing_due(2024, 4), date(2025, 1, 10))


if __name__ == "__main__":
    main()

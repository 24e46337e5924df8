"""
Unit tests of orders, customers, prices, discounts and taxes.
"""

import unittest
from datetime import date
from decimal import Decimal

from globex import catalog
from globex import customers
from globex import discounts
from globex import orders
from globex import pricing
from globex import reports
from globex import taxes
from globex.models import Customer
from globex.models import Order
from globex.models import OrderLine
from globex.models import Product


def create_sample_products():
    """
    Create the products that are used by the tests.

    Returns:
        A list of three products.
    """
    result_list = []
    result_list.append(Product("TEA-001", "Green tea", "4.50", "0.5", "tea", "reduced"))
    result_list.append(Product("CUP-100", "Blue cup", "8.00", "0.3", "ware"))
    result_list.append(Product("POT-200", "Iron pot", "49.00", "2.1", "ware"))
    return result_list


def create_sample_orders():
    """
    Create the orders that are used by the tests.

    Returns:
        A list of three orders, the last of which is cancelled.
    """
    first_order = Order("o1", "c1", date(2024, 1, 10), "paid")
    first_order.add_line(OrderLine("TEA-001", 2, "4.50"))
    first_order.add_line(OrderLine("CUP-100", 1, "8.00"))

    second_order = Order("o2", "c2", date(2024, 2, 3), "open")
    second_order.add_line(OrderLine("POT-200", 1, "49.00"))
    second_order.set_coupon_code("SPRING")

    third_order = Order("o3", "c1", date(2024, 2, 20), "cancelled")
    third_order.add_line(OrderLine("TEA-001", 6, "4.50"))

    return [first_order, second_order, third_order]


class OrderTest(unittest.TestCase):
    """
    Tests of the functions that work with orders.
    """

    def setUp(self):
        """
        Create fresh orders for each test.
        """
        self.orders = create_sample_orders()

    def test_groups_by_customer(self):
        """
        Orders of the same customer are in the same group.
        """
        groups = orders.group_orders_by_customer(self.orders)
        self.assertEqual(len(groups["c1"]), 2)
        self.assertEqual(len(groups["c2"]), 1)

    def test_status_change(self):
        """
        Only the allowed changes of the status are possible.
        """
        orders.change_order_status(self.orders[1], "paid")
        self.assertEqual(self.orders[1].get_status(), "paid")
        with self.assertRaises(ValueError):
            orders.change_order_status(self.orders[2], "paid")

    def test_missing_orders_are_refused(self):
        """
        A missing list raises an error with the name of the argument.
        """
        with self.assertRaisesRegex(ValueError, "orders"):
            orders.find_largest_order(None)

    def test_merge_lines(self):
        """
        Lines with the same product and price become one line.
        """
        lines = [OrderLine("TEA-001", 1, "4.50"), OrderLine("TEA-001", 2, "4.50")]
        merged_lines = orders.merge_order_lines(lines)
        self.assertEqual(len(merged_lines), 1)
        self.assertEqual(merged_lines[0].get_quantity(), 3)

    def test_inactive_customers(self):
        """
        Customers without recent orders are inactive.
        """
        first_customer = Customer("c1", "Ada Long", "ada@mail.test", date(2023, 1, 5))
        second_customer = Customer("c9", "Cy Dean", "cy@mail.test", date(2023, 2, 9))
        inactive_customers = customers.get_inactive_customers(
            [first_customer, second_customer], self.orders, date(2024, 3, 1)
        )
        self.assertEqual(inactive_customers, [second_customer])


class PriceTest(unittest.TestCase):
    """
    Tests of prices, discounts, taxes and reports.
    """

    def setUp(self):
        """
        Create fresh orders and products for each test.
        """
        self.orders = create_sample_orders()
        self.products = create_sample_products()

    def test_quantity_price(self):
        """
        Larger quantities have lower prices.
        """
        price_steps = {10: Decimal("4.00"), 50: Decimal("3.50")}
        base_price = Decimal("4.50")
        self.assertEqual(pricing.find_quantity_price(price_steps, 1, base_price), base_price)
        self.assertEqual(pricing.find_quantity_price(price_steps, 60, base_price), Decimal("3.50"))

    def test_coupon(self):
        """
        A valid coupon makes the order cheaper.
        """
        coupon = discounts.Coupon("SPRING", 10, date(2024, 2, 1), date(2024, 3, 1))
        amount = discounts.calculate_coupon_discount(self.orders[1], [coupon])
        self.assertEqual(amount, Decimal("4.90"))

    def test_free_units(self):
        """
        Every third unit is free.
        """
        amount = discounts.calculate_free_units_discount(self.orders[2], "TEA-001", 2, 1)
        self.assertEqual(amount, Decimal("9.00"))

    def test_tax(self):
        """
        The tax is calculated for each tax rate.
        """
        tax = taxes.calculate_order_tax(self.orders[0], self.products, "DE")
        self.assertEqual(tax, Decimal("2.15"))

    def test_search(self):
        """
        Products with more matching words come first.
        """
        found_products = catalog.search_products(self.products, "green ware tea")
        self.assertEqual(found_products[0].get_sku(), "TEA-001")
        self.assertEqual(len(found_products), 3)

    def test_reports(self):
        """
        Cancelled orders do not count as revenue.
        """
        totals = reports.calculate_revenue_by_month(self.orders)
        self.assertEqual(totals, {"2024-01": Decimal("17.00"), "2024-02": Decimal("49.00")})
        self.assertEqual(reports.get_best_sellers(self.orders, 1), ["TEA-001"])


if __name__ == "__main__":
    unittest.main()

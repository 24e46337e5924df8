"""
Unit tests of stock, shipping, payments, invoices, files and services.
"""

import os
import tempfile
import unittest
from datetime import date
from decimal import Decimal

from globex import dates
from globex import events
from globex import exporting
from globex import importing
from globex import inventory
from globex import invoices
from globex import payments
from globex import retrying
from globex import shipping
from globex import validation
from globex.models import Customer
from globex.models import Payment
from globex.models import Shipment
from tests.test_sales import create_sample_orders
from tests.test_sales import create_sample_products


class StockTest(unittest.TestCase):
    """
    Tests of the inventory and of the shipping of orders.
    """

    def test_oldest_order_is_shipped_first(self):
        """
        The oldest order gets the units if there are not enough for all.
        """
        stock = inventory.Inventory("main")
        stock.add_units("TEA-001", 6)
        stock.add_units("CUP-100", 1)
        sample_orders = create_sample_orders()
        shipped_orders = inventory.ship_orders(stock, sample_orders)
        self.assertEqual(shipped_orders, [sample_orders[0]])
        self.assertEqual(stock.get_quantity("TEA-001"), 4)

    def test_too_few_units(self):
        """
        More units than there are cannot be removed.
        """
        stock = inventory.Inventory("main")
        with self.assertRaises(ValueError):
            stock.remove_units("TEA-001", 1)

    def test_late_shipments(self):
        """
        A shipment that is on its way for too long is late.
        """
        carrier = shipping.Carrier("swift", "5.00", "1.00", 2)
        first_shipment = Shipment("s1", "o1", "swift", date(2024, 2, 5))
        first_shipment.set_delivered_on(date(2024, 2, 7))
        second_shipment = Shipment("s2", "o2", "swift", date(2024, 2, 5))
        late_shipments = shipping.get_late_shipments(
            [first_shipment, second_shipment], [carrier], date(2024, 2, 8)
        )
        self.assertEqual(late_shipments, [second_shipment])


class MoneyTest(unittest.TestCase):
    """
    Tests of payments and invoices.
    """

    def test_unpaid_orders(self):
        """
        An order is unpaid until the whole total was received.
        """
        sample_orders = create_sample_orders()
        payment = Payment("p1", "o1", "17.00", date(2024, 1, 11))
        unpaid_orders = payments.get_unpaid_orders(sample_orders, [payment])
        self.assertEqual(unpaid_orders, [sample_orders[1]])

    def test_installments(self):
        """
        The installments add up to the whole amount.
        """
        parts = payments.split_into_installments(Decimal("100.00"), 3)
        self.assertEqual(sum(parts), Decimal("100.00"))
        self.assertEqual(len(parts), 3)

    def test_invoice(self):
        """
        An invoice shows its number and its gross amount.
        """
        new_invoices = invoices.create_invoices(
            create_sample_orders(), create_sample_products(), "DE", date(2024, 3, 1)
        )
        customer = Customer("c1", "Ada Long", "ada@mail.test", date(2023, 1, 5))
        text = invoices.format_invoice(new_invoices[0], customer)
        self.assertIn("2024-00001", text)
        self.assertIn("Total 19.15", text)


class ServiceTest(unittest.TestCase):
    """
    Tests of dates, files, validation, retrying and events.
    """

    def test_working_days(self):
        """
        Weekends and holidays are left out.
        """
        day = dates.add_working_days(date(2024, 2, 2), 2, [date(2024, 2, 5)])
        self.assertEqual(day, date(2024, 2, 7))

    def test_export_and_import(self):
        """
        Rows that were written can be read again.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "products.csv")
            rows = []
            rows.append({"sku": "TEA-001", "name": "Green tea", "price": "4,50"})
            rows.append({"sku": "X", "name": "", "price": "1"})
            exporting.write_csv_rows(path, rows)
            products, messages = importing.load_products(path)
        self.assertEqual(products[0].get_price(), Decimal("4.50"))
        self.assertEqual(len(messages), 1)

    def test_validation(self):
        """
        Every mistake of an order has its own message.
        """
        sample_order = create_sample_orders()[0]
        messages = validation.validate_order(sample_order, [], create_sample_products())
        self.assertEqual(messages, ["The customer is not known."])
        self.assertTrue(validation.is_valid_email("ada@mail.test"))

    def test_retry(self):
        """
        The delays grow until the action has failed too often.
        """
        delays = []

        def failing_action():
            raise OSError("no connection")

        with self.assertRaises(retrying.RetryError):
            retrying.retry_action(failing_action, 4, 1, delays.append)
        self.assertEqual(delays, [1, 2, 4])

    def test_events(self):
        """
        An error in one handler does not stop the others.
        """
        bus = events.EventBus()
        received_events = []
        bus.add_handler("order_placed", lambda event: event.missing)
        bus.add_handler("order_placed", received_events.append)
        success_count = bus.publish(events.Event("order_placed", "o1", date(2024, 1, 1)))
        self.assertEqual(success_count, 1)
        self.assertEqual(len(received_events), 1)
        self.assertEqual(len(bus.get_errors()), 1)


if __name__ == "__main__":
    unittest.main()

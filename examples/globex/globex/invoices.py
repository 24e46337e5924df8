"""
Invoices, their numbers and their reminders.
"""

from datetime import timedelta
from decimal import Decimal

from globex.helpers import check_not_none
from globex.helpers import get_value_or_default
from globex.helpers import round_amount
from globex.payments import calculate_paid_amounts
from globex.taxes import calculate_order_tax


class Invoice:
    """
    A bill that is sent to a customer for an order.
    """

    def __init__(self, number, order, issued_on, tax):
        """
        Create a new invoice that is due after 14 days.

        Args:
            number: The number of the invoice.
            order: The order that is billed.
            issued_on: The date of the invoice.
            tax: The amount of tax.
        """
        self.number = number
        self.order = order
        self.issued_on = issued_on
        self.due_on = issued_on + timedelta(days=14)
        self.tax = round_amount(tax)

    def get_number(self):
        """
        Return the number of the invoice.
        """
        return self.number

    def get_order(self):
        """
        Return the order that is billed.
        """
        return self.order

    def get_issued_on(self):
        """
        Return the date of the invoice.
        """
        return self.issued_on

    def get_due_on(self):
        """
        Return the date on which the invoice has to be paid.
        """
        return self.due_on

    def set_due_on(self, due_on):
        """
        Change the date on which the invoice has to be paid.

        Args:
            due_on: The new date, which must not be before the invoice.

        Raises:
            ValueError: If the date is None or before the invoice.
        """
        check_not_none(due_on, "due_on")
        if due_on < self.issued_on:
            raise ValueError("An invoice must not be due before it is issued.")
        self.due_on = due_on

    def get_tax(self):
        """
        Return the amount of tax.
        """
        return self.tax

    def get_gross_amount(self):
        """
        Return the total of the order together with the tax.
        """
        net_amount = self.order.get_total()
        gross_amount = net_amount + self.tax
        return gross_amount


def build_invoice_number(year, serial_number):
    """
    Build the number of an invoice.

    Args:
        year: The year of the invoice.
        serial_number: The position of the invoice inside the year.

    Returns:
        A string such as "2024-00017".

    Raises:
        ValueError: If the year or the serial number is None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(year, "year")
    check_not_none(serial_number, "serial_number")

    year_text = str(year)
    serial_text = str(serial_number).zfill(5)
    invoice_number = year_text + "-" + serial_text
    return invoice_number


def find_next_serial_number(invoices, year):
    """
    Find the next serial number that is free in a year.

    Args:
        invoices: The list of all invoices.
        year: The year of the new invoice.

    Returns:
        The serial number, which is one for the first invoice of the year.

    Raises:
        ValueError: If the invoices are None.
    """
    # Make sure that the invoices are usable before we start.
    check_not_none(invoices, "invoices")

    # Remember the largest serial number that we have seen so far.
    largest_number = 0
    for invoice in invoices:
        if invoice.get_issued_on().year != year:
            continue
        parts = invoice.get_number().split("-")
        serial_number = int(parts[1])
        if serial_number > largest_number:
            largest_number = serial_number

    return largest_number + 1


def create_invoices(orders, products, country, issued_on):
    """
    Create an invoice for every order that was paid or shipped.

    Args:
        orders: The list of orders to bill.
        products: The list of all products.
        country: The two-letter code of the country in which tax is paid.
        issued_on: The date of the invoices.

    Returns:
        A list of the new invoices.

    Raises:
        ValueError: If the orders or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(orders, "orders")
    check_not_none(products, "products")

    # Create one invoice after the other, so that the numbers have no gaps.
    result_list = []
    for order in orders:
        if order.get_status() not in ["paid", "shipped"]:
            continue
        serial_number = find_next_serial_number(result_list, issued_on.year)
        number = build_invoice_number(issued_on.year, serial_number)
        tax = calculate_order_tax(order, products, country)
        invoice = Invoice(number, order, issued_on, tax)
        result_list.append(invoice)

    return result_list


def get_overdue_invoices(invoices, payments, today):
    """
    Find the invoices that should have been paid by now.

    Args:
        invoices: The list of invoices to search in.
        payments: The list of all payments.
        today: The date of today.

    Returns:
        A list of the overdue invoices.

    Raises:
        ValueError: If the invoices or the payments are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(invoices, "invoices")
    check_not_none(payments, "payments")

    # Compare the gross amount with the amount that was paid.
    paid_amounts = calculate_paid_amounts(payments)
    result_list = []
    for invoice in invoices:
        if invoice.get_due_on() >= today:
            continue
        order_id = invoice.get_order().get_order_id()
        paid_amount = get_value_or_default(paid_amounts, order_id, Decimal("0.00"))
        if paid_amount < invoice.get_gross_amount():
            result_list.append(invoice)

    return result_list


def format_invoice(invoice, customer):
    """
    Write an invoice as a text that can be printed.

    Args:
        invoice: The invoice to write.
        customer: The customer who receives the invoice.

    Returns:
        The text, in which every line ends with a line break.

    Raises:
        ValueError: If the invoice or the customer is None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(invoice, "invoice")
    check_not_none(customer, "customer")

    # Write the head of the invoice.
    text_lines = []
    text_lines.append("Invoice " + invoice.get_number())
    text_lines.append("For " + customer.get_name())
    text_lines.append("Due on " + str(invoice.get_due_on()))

    # Write one line of text for each line of the order.
    for line in invoice.get_order().get_lines():
        text_line = str(line.get_quantity()) + " x " + line.get_sku()
        text_line = text_line + " = " + str(line.get_amount())
        text_lines.append(text_line)

    # Write the sums at the end.
    text_lines.append("Tax " + str(invoice.get_tax()))
    text_lines.append("Total " + str(invoice.get_gross_amount()))

    # Join the lines to one text.
    text = ""
    for text_line in text_lines:
        text = text + text_line + "\n"

    return text

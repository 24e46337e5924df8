"""
Functions that compare payments with orders.
"""

from decimal import Decimal

from globex.helpers import add_to_total
from globex.helpers import build_result_list
from globex.helpers import check_not_none
from globex.helpers import check_positive
from globex.helpers import get_value_or_default
from globex.helpers import round_amount
from globex.models import Payment


def calculate_paid_amounts(payments):
    """
    Calculate how much money was received for each order.

    Args:
        payments: The list of payments to add up.

    Returns:
        A dictionary that maps an order identifier to an amount.

    Raises:
        ValueError: If the payments are None.
    """
    # Make sure that the payments are usable before we start.
    check_not_none(payments, "payments")

    # Add each payment to the total of its order.
    totals = {}
    for payment in payments:
        order_id = payment.get_order_id()
        add_to_total(totals, order_id, payment.get_amount())

    return totals


def calculate_open_amount(order, payments):
    """
    Calculate how much money is still missing for an order.

    Args:
        order: The order to look at.
        payments: The list of all payments.

    Returns:
        The missing amount. It is negative if too much was paid.

    Raises:
        ValueError: If the order or the payments are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(payments, "payments")

    # Take off every payment that belongs to the order.
    open_amount = order.get_total()
    for payment in payments:
        if payment.get_order_id() == order.get_order_id():
            open_amount = open_amount - payment.get_amount()

    return open_amount


def get_unpaid_orders(orders, payments):
    """
    Find the orders that have not been paid completely.

    Args:
        orders: The list of orders to search in.
        payments: The list of all payments.

    Returns:
        A list of the unpaid orders. Cancelled orders are left out.

    Raises:
        ValueError: If the orders or the payments are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(orders, "orders")
    check_not_none(payments, "payments")

    # Compare the total of each order with the amount that was paid.
    paid_amounts = calculate_paid_amounts(payments)
    result_list = []
    for order in orders:
        if order.get_status() == "cancelled":
            continue
        order_id = order.get_order_id()
        paid_amount = get_value_or_default(paid_amounts, order_id, Decimal("0.00"))
        if paid_amount < order.get_total():
            result_list.append(order)

    return result_list


def find_unknown_payments(payments, orders):
    """
    Find the payments that belong to an order that does not exist.

    Args:
        payments: The list of payments to search in.
        orders: The list of all orders.

    Returns:
        A list of the payments that could not be assigned.

    Raises:
        ValueError: If the payments or the orders are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(payments, "payments")
    check_not_none(orders, "orders")

    # Collect every payment whose order is not known.
    known_order_ids = build_result_list(orders, "get_order_id")
    result_list = []
    for payment in payments:
        if payment.get_order_id() not in known_order_ids:
            result_list.append(payment)

    return result_list


def create_refund(payment, amount, refunded_on):
    """
    Create a payment that gives money back to the customer.

    Args:
        payment: The payment that is given back.
        amount: The amount that is given back.
        refunded_on: The date of the refund.

    Returns:
        A new payment with a negative amount.

    Raises:
        ValueError: If the amount is not positive or larger than the payment.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(payment, "payment")
    check_positive(amount, "amount")

    # We never give back more than we have received.
    if amount > payment.get_amount():
        raise ValueError("The refund must not be larger than the payment.")

    refund_id = payment.get_payment_id() + "-R"
    refund = Payment(refund_id, payment.get_order_id(), -amount, refunded_on, payment.get_method())
    return refund


def split_into_installments(amount, installment_count):
    """
    Split an amount into parts that are paid one after the other.

    Args:
        amount: The amount that is split.
        installment_count: The number of parts.

    Returns:
        A list of amounts. The last one takes what is left by rounding.

    Raises:
        ValueError: If the amount or the number of parts is not positive.
    """
    # Make sure that the arguments are usable before we start.
    check_positive(amount, "amount")
    check_positive(installment_count, "installment_count")

    # Every part except the last one has the same size.
    part = round_amount(amount / installment_count)
    remaining_amount = amount
    result_list = []
    for number in range(installment_count - 1):
        result_list.append(part)
        remaining_amount = remaining_amount - part

    # The last part takes everything that is left.
    result_list.append(remaining_amount)
    return result_list

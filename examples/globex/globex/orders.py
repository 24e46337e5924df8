"""
Functions that search, group and change orders.

All functions in this module expect a list of Order objects. None of them
changes the list itself, but some of them change the status of an order.
"""

from decimal import Decimal

from globex.helpers import add_to_total
from globex.helpers import append_to_group
from globex.helpers import check_not_none
from globex.helpers import round_amount
from globex.models import Order
from globex.models import OrderLine

ALLOWED_STATUS_CHANGES = {
    "open": ["paid", "cancelled"],
    "paid": ["shipped", "cancelled"],
    "shipped": ["closed"],
    "closed": [],
    "cancelled": [],
}


def create_order_from_cart(order_id, customer_id, placed_on, cart, products):
    """
    Create an order from the content of a shopping cart.

    Args:
        order_id: The identifier of the new order.
        customer_id: The identifier of the customer who placed the order.
        placed_on: The date on which the order was placed.
        cart: A dictionary that maps a stock number to a quantity.
        products: The list of the products that can be bought.

    Returns:
        The new order with one line for each entry of the cart.

    Raises:
        ValueError: If the cart is None.
        KeyError: If the cart contains a product that does not exist.
    """
    # Make sure that the cart is usable before we start.
    check_not_none(cart, "cart")

    # Remember the price of every product, so that we can look it up quickly.
    prices = {}
    for product in products:
        sku = product.get_sku()
        prices[sku] = product.get_price()

    # Create the order and add one line for each entry of the cart.
    order = Order(order_id, customer_id, placed_on)
    for sku in cart:
        if sku not in prices:
            raise KeyError("The product '" + sku + "' does not exist.")
        line = OrderLine(sku, cart[sku], prices[sku])
        order.add_line(line)

    return order


def find_order_by_id(orders, order_id):
    """
    Find the order that has the given identifier.

    Args:
        orders: The list of orders to search in.
        order_id: The identifier to look for.

    Returns:
        The order that was found, or None if there is no such order.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Look at every order until we find the right one.
    for order in orders:
        if order.get_order_id() == order_id:
            return order

    # We have looked at every order and found nothing.
    return None


def group_orders_by_customer(orders):
    """
    Group orders by the customer who placed them.

    Args:
        orders: The list of orders to group.

    Returns:
        A dictionary that maps a customer identifier to a list of orders.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Put each order into the group of its customer.
    groups = {}
    for order in orders:
        customer_id = order.get_customer_id()
        append_to_group(groups, customer_id, order)

    return groups


def get_orders_between(orders, start_date, end_date):
    """
    Find the orders that were placed between two dates.

    Args:
        orders: The list of orders to search in.
        start_date: The first date that counts.
        end_date: The last date that counts.

    Returns:
        A list of the orders that were placed between the two dates.

    Raises:
        ValueError: If the orders are None or if the dates are swapped.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(orders, "orders")
    if start_date > end_date:
        raise ValueError("The start date must not be after the end date.")

    # Collect every order that lies between the two dates.
    result_list = []
    for order in orders:
        placed_on = order.get_placed_on()
        if placed_on < start_date:
            continue
        if placed_on > end_date:
            continue
        result_list.append(order)

    return result_list


def find_largest_order(orders):
    """
    Find the order with the largest total.

    Args:
        orders: The list of orders to search in.

    Returns:
        The order with the largest total, or None if the list is empty.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Remember the best order that we have seen so far.
    largest_order = None
    for order in orders:
        if largest_order is None:
            largest_order = order
        elif order.get_total() > largest_order.get_total():
            largest_order = order

    return largest_order


def calculate_average_order_value(orders):
    """
    Calculate the average total of a list of orders.

    Args:
        orders: The list of orders to look at.

    Returns:
        The average as a Decimal with two decimal places, or zero if the list
        is empty.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Add up the totals and count the orders at the same time.
    total = Decimal("0.00")
    order_count = 0
    for order in orders:
        total = total + order.get_total()
        order_count = order_count + 1

    # Avoid a division by zero if there are no orders.
    if order_count == 0:
        return Decimal("0.00")

    average = round_amount(total / order_count)
    return average


def change_order_status(order, new_status):
    """
    Change the status of an order if the change is allowed.

    Args:
        order: The order that is changed in place.
        new_status: The status that the order should have afterwards.

    Returns:
        The same order with its new status.

    Raises:
        ValueError: If the order is None or if the change is not allowed.
    """
    # Make sure that the order is usable before we start.
    check_not_none(order, "order")

    # Find out which changes are allowed from the present status.
    old_status = order.get_status()
    allowed_statuses = ALLOWED_STATUS_CHANGES[old_status]
    if new_status not in allowed_statuses:
        message = "An order cannot change from " + old_status + " to " + new_status + "."
        raise ValueError(message)

    order.set_status(new_status)
    return order


def merge_order_lines(lines):
    """
    Merge lines that have the same product and the same unit price.

    Args:
        lines: The list of order lines to merge.

    Returns:
        A new list of order lines without duplicates.

    Raises:
        ValueError: If the lines are None.
    """
    # Make sure that the lines are usable before we start.
    check_not_none(lines, "lines")

    # Add up the quantities for each combination of product and price.
    quantities = {}
    for line in lines:
        key = (line.get_sku(), line.get_unit_price())
        add_to_total(quantities, key, line.get_quantity())

    # Create one new line for each combination.
    result_list = []
    for key in quantities:
        sku = key[0]
        unit_price = key[1]
        merged_line = OrderLine(sku, quantities[key], unit_price)
        result_list.append(merged_line)

    return result_list

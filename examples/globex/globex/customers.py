"""
Functions that search, group and rate customers.
"""

from datetime import timedelta
from decimal import Decimal

from globex.helpers import add_to_total
from globex.helpers import append_to_group
from globex.helpers import check_not_none
from globex.helpers import get_value_or_default
from globex.helpers import is_valid_value

SILVER_LIMIT = Decimal("1000.00")
GOLD_LIMIT = Decimal("5000.00")


def normalize_email(email):
    """
    Bring an email address into the form that we use for comparisons.

    Args:
        email: The email address as it was entered.

    Returns:
        The email address in lower case and without surrounding spaces.

    Raises:
        ValueError: If the email address is empty.
    """
    # Make sure that the email address is usable before we start.
    if not is_valid_value(email):
        raise ValueError("The email address must not be empty.")

    stripped_email = email.strip()
    lower_email = stripped_email.lower()
    return lower_email


def find_customer_by_email(customers, email):
    """
    Find the customer that has the given email address.

    Args:
        customers: The list of customers to search in.
        email: The email address to look for.

    Returns:
        The customer that was found, or None if there is no such customer.

    Raises:
        ValueError: If the customers are None or if the email address is empty.
    """
    # Make sure that the customers are usable before we start.
    check_not_none(customers, "customers")

    # Look at every customer until we find the right one.
    wanted_email = normalize_email(email)
    for customer in customers:
        customer_email = normalize_email(customer.get_email())
        if customer_email == wanted_email:
            return customer

    # We have looked at every customer and found nothing.
    return None


def group_customers_by_country(customers):
    """
    Group customers by the country in which they live.

    Args:
        customers: The list of customers to group.

    Returns:
        A dictionary that maps a country code to a list of customers.

    Raises:
        ValueError: If the customers are None.
    """
    # Make sure that the customers are usable before we start.
    check_not_none(customers, "customers")

    # Put each customer into the group of the country.
    groups = {}
    for customer in customers:
        country = customer.get_country()
        append_to_group(groups, country, customer)

    return groups


def calculate_spending(orders):
    """
    Calculate how much money each customer has spent.

    Args:
        orders: The list of orders to add up. Cancelled orders do not count.

    Returns:
        A dictionary that maps a customer identifier to an amount.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Add the total of each order to the total of its customer.
    totals = {}
    for order in orders:
        if order.get_status() == "cancelled":
            continue
        customer_id = order.get_customer_id()
        add_to_total(totals, customer_id, order.get_total())

    return totals


def get_level_for_amount(amount):
    """
    Find the level that a customer reaches by spending a certain amount.

    Args:
        amount: The amount that the customer has spent.

    Returns:
        The name of the level, which is standard, silver or gold.

    Raises:
        ValueError: If the amount is None.
    """
    # Make sure that the amount is usable before we start.
    check_not_none(amount, "amount")

    # Check the highest level first.
    if amount >= GOLD_LIMIT:
        level = "gold"
    elif amount >= SILVER_LIMIT:
        level = "silver"
    else:
        level = "standard"

    return level


def find_last_order_dates(orders):
    """
    Find the date of the latest order of each customer.

    Args:
        orders: The list of orders to look at.

    Returns:
        A dictionary that maps a customer identifier to a date.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Keep the later date whenever we see a customer again.
    last_dates = {}
    for order in orders:
        customer_id = order.get_customer_id()
        placed_on = order.get_placed_on()
        if customer_id not in last_dates:
            last_dates[customer_id] = placed_on
        elif placed_on > last_dates[customer_id]:
            last_dates[customer_id] = placed_on

    return last_dates


def get_inactive_customers(customers, orders, today, day_limit=180):
    """
    Find the customers who have not placed an order for a long time.

    Args:
        customers: The list of customers to search in.
        orders: The list of all orders.
        today: The date from which we look back.
        day_limit: The number of days after which a customer is inactive.

    Returns:
        A list of the inactive customers.

    Raises:
        ValueError: If the customers or the orders are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(customers, "customers")
    check_not_none(orders, "orders")

    # A customer without any order is judged by the date of joining.
    last_dates = find_last_order_dates(orders)
    limit_date = today - timedelta(days=day_limit)
    result_list = []
    for customer in customers:
        customer_id = customer.get_customer_id()
        joined_on = customer.get_joined_on()
        last_date = get_value_or_default(last_dates, customer_id, joined_on)
        if last_date < limit_date:
            result_list.append(customer)

    return result_list

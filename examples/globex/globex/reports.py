"""
Reports about sales.
"""

from decimal import Decimal

from globex.catalog import build_product_index
from globex.dates import get_month_key
from globex.helpers import add_to_total
from globex.helpers import check_not_none
from globex.helpers import get_value_or_default
from globex.helpers import round_amount
from globex.helpers import sort_keys_by_value


def calculate_revenue(orders):
    """
    Calculate the revenue of a list of orders.

    Args:
        orders: The list of orders to add up. Cancelled orders do not count.

    Returns:
        The revenue with two decimal places.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Start with zero and add every order one by one.
    revenue = Decimal("0.00")
    for order in orders:
        if order.get_status() == "cancelled":
            continue
        revenue = revenue + order.get_total()

    return revenue


def calculate_revenue_by_month(orders):
    """
    Calculate the revenue of each month.

    Args:
        orders: The list of orders to add up. Cancelled orders do not count.

    Returns:
        A dictionary that maps a month key to an amount.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Add each order to the total of its month.
    totals = {}
    for order in orders:
        if order.get_status() == "cancelled":
            continue
        month_key = get_month_key(order.get_placed_on())
        add_to_total(totals, month_key, order.get_total())

    return totals


def calculate_revenue_by_category(orders, products):
    """
    Calculate the revenue of each category of products.

    Args:
        orders: The list of orders to add up.
        products: The list of all products.

    Returns:
        A dictionary that maps the name of a category to an amount.

    Raises:
        ValueError: If the orders or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(orders, "orders")
    check_not_none(products, "products")

    # Add each line to the total of the category of its product.
    index = build_product_index(products)
    totals = {}
    for order in orders:
        for line in order.get_lines():
            product = get_value_or_default(index, line.get_sku(), None)
            if product is None:
                continue
            category = product.get_category()
            add_to_total(totals, category, line.get_amount())

    return totals


def count_units_by_sku(orders):
    """
    Count how many units of each product were ordered.

    Args:
        orders: The list of orders to look at.

    Returns:
        A dictionary that maps a stock number to a number of units.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Add the quantity of each line to the count of its product.
    counts = {}
    for order in orders:
        for line in order.get_lines():
            add_to_total(counts, line.get_sku(), line.get_quantity())

    return counts


def get_best_sellers(orders, result_limit=10):
    """
    Find the products that were ordered most often.

    Args:
        orders: The list of orders to look at.
        result_limit: The largest number of products that are returned.

    Returns:
        A list of stock numbers. The best product comes first.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Collect the best products until the limit is reached.
    counts = count_units_by_sku(orders)
    result_list = []
    for sku in sort_keys_by_value(counts):
        if len(result_list) >= result_limit:
            break
        result_list.append(sku)

    return result_list


def calculate_running_totals(totals_by_month):
    """
    Calculate the sum of all months up to each month.

    Args:
        totals_by_month: A dictionary that maps a month key to an amount.

    Returns:
        A dictionary that maps a month key to the sum up to that month.

    Raises:
        ValueError: If the totals are None.
    """
    # Make sure that the totals are usable before we start.
    check_not_none(totals_by_month, "totals_by_month")

    # Keep adding the months in the order of time.
    running_totals = {}
    running_total = Decimal("0.00")
    for month_key in sorted(totals_by_month):
        running_total = running_total + totals_by_month[month_key]
        running_totals[month_key] = running_total

    return running_totals


def calculate_cancel_rate(orders):
    """
    Calculate the percentage of orders that were cancelled.

    Args:
        orders: The list of orders to look at.

    Returns:
        The percentage with two decimal places, or zero without any orders.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Count all orders and the cancelled orders at the same time.
    order_count = 0
    cancelled_count = 0
    for order in orders:
        order_count = order_count + 1
        if order.get_status() == "cancelled":
            cancelled_count = cancelled_count + 1

    # Avoid a division by zero if there are no orders.
    if order_count == 0:
        return Decimal("0.00")

    cancel_rate = round_amount(Decimal(cancelled_count) * 100 / order_count)
    return cancel_rate


def format_table(rows):
    """
    Write rows of values as a table in which the columns are aligned.

    Args:
        rows: A list of rows. Every row is a list of the same length.

    Returns:
        The table as a text, in which every line ends with a line break.

    Raises:
        ValueError: If the rows are None.
    """
    # Make sure that the rows are usable before we start.
    check_not_none(rows, "rows")

    # Find the width of each column.
    widths = {}
    for row in rows:
        for position, value in enumerate(row):
            width = len(str(value))
            if position not in widths or width > widths[position]:
                widths[position] = width

    # Write one line of text for each row.
    text = ""
    for row in rows:
        text_line = ""
        for position, value in enumerate(row):
            text_line = text_line + str(value).ljust(widths[position]) + "  "
        text = text + text_line.rstrip() + "\n"

    return text

"""
Functions that write orders and reports to files.
"""

import csv
from datetime import date
from decimal import Decimal

from globex.helpers import check_not_none
from globex.helpers import is_valid_value


def convert_to_plain_value(value):
    """
    Convert a value into a form that can be written as JSON.

    Args:
        value: The value to convert.

    Returns:
        A string, a number, a list or a dictionary.
    """
    # Decimals and dates are written as strings.
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()

    # The items of a list are converted one by one.
    if isinstance(value, (list, tuple)):
        result_list = []
        for item in value:
            result_list.append(convert_to_plain_value(item))
        return result_list

    # The values of a dictionary are converted one by one.
    if isinstance(value, dict):
        result_dictionary = {}
        for key in value:
            result_dictionary[str(key)] = convert_to_plain_value(value[key])
        return result_dictionary

    return value


def create_row_from_order(order):
    """
    Create a row for a CSV file from an order.

    Args:
        order: The order to write.

    Returns:
        A dictionary that maps the name of a column to a value.

    Raises:
        ValueError: If the order is None.
    """
    # Make sure that the order is usable before we start.
    check_not_none(order, "order")

    row = {}
    row["order_id"] = order.get_order_id()
    row["customer_id"] = order.get_customer_id()
    row["placed_on"] = order.get_placed_on()
    row["status"] = order.get_status()
    row["total"] = order.get_total()
    return row


def create_rows_from_totals(totals, key_column, amount_column):
    """
    Create rows for a CSV file from a dictionary of totals.

    Args:
        totals: A dictionary that maps a key to an amount.
        key_column: The name of the column for the keys.
        amount_column: The name of the column for the amounts.

    Returns:
        A list of rows, which is sorted by key.

    Raises:
        ValueError: If the totals are None.
    """
    # Make sure that the totals are usable before we start.
    check_not_none(totals, "totals")

    # Create one row for each key.
    result_list = []
    for key in sorted(totals):
        row = {}
        row[key_column] = key
        row[amount_column] = totals[key]
        result_list.append(row)

    return result_list


def write_csv_rows(path, rows, delimiter=","):
    """
    Write rows to a CSV file.

    Args:
        path: The path of the file.
        rows: A list of dictionaries with the same columns.
        delimiter: The character between two values.

    Returns:
        The number of rows that were written.

    Raises:
        ValueError: If the path is empty or if the rows are None.
        OSError: If the file cannot be written.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(rows, "rows")
    if not is_valid_value(path):
        raise ValueError("The path must not be empty.")

    # Find the names of all columns.
    columns = []
    for row in rows:
        for column in row:
            if column not in columns:
                columns.append(column)

    # Write the names of the columns first and then the rows.
    row_count = 0
    with open(path, "w", newline="", encoding="utf-8") as csv_file:
        writer = csv.DictWriter(csv_file, columns, delimiter=delimiter)
        writer.writeheader()
        for row in rows:
            plain_row = convert_to_plain_value(row)
            writer.writerow(plain_row)
            row_count = row_count + 1

    return row_count


def export_orders(path, orders):
    """
    Export a list of orders to a CSV file.

    Args:
        path: The path of the file.
        orders: The list of orders to write.

    Returns:
        The number of orders that were written.

    Raises:
        ValueError: If the orders are None.
        OSError: If the file cannot be written.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Create one row for each order.
    rows = []
    for order in orders:
        row = create_row_from_order(order)
        rows.append(row)

    row_count = write_csv_rows(path, rows)
    return row_count

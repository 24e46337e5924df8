"""
Functions that read products and orders from files.
"""

import csv
from decimal import Decimal
from decimal import InvalidOperation

from globex.dates import parse_date
from globex.helpers import check_not_none
from globex.helpers import get_value_or_default
from globex.helpers import is_valid_value
from globex.helpers import round_amount
from globex.models import Order
from globex.models import OrderLine
from globex.models import Product


def read_csv_rows(path, delimiter=","):
    """
    Read all rows of a CSV file.

    Args:
        path: The path of the file.
        delimiter: The character between two values.

    Returns:
        A list of dictionaries that map the name of a column to a value.

    Raises:
        ValueError: If the path is empty.
        OSError: If the file cannot be read.
    """
    # Make sure that the path is usable before we start.
    if not is_valid_value(path):
        raise ValueError("The path must not be empty.")

    # Read the rows one by one and leave out rows without any value.
    result_list = []
    with open(path, "r", newline="", encoding="utf-8") as csv_file:
        reader = csv.DictReader(csv_file, delimiter=delimiter)
        for row in reader:
            has_value = False
            for column in row:
                if is_valid_value(row[column]):
                    has_value = True
            if has_value:
                result_list.append(row)

    return result_list


def parse_amount(text):
    """
    Read an amount of money from a text such as "1.234,50" or "1234.50".

    Args:
        text: The text to read.

    Returns:
        The amount with two decimal places.

    Raises:
        ValueError: If the text is empty or if it is not an amount.
    """
    # Make sure that the text is usable before we start.
    if not is_valid_value(text):
        raise ValueError("The text of an amount must not be empty.")

    # A comma means that the text was written in the German way.
    cleaned_text = text.strip().replace(" ", "")
    if "," in cleaned_text:
        cleaned_text = cleaned_text.replace(".", "")
        cleaned_text = cleaned_text.replace(",", ".")

    # Turn the error of the decimal module into one that we know.
    try:
        amount = Decimal(cleaned_text)
    except InvalidOperation:
        raise ValueError("The text '" + text + "' is not an amount.")

    return round_amount(amount)


def create_product_from_row(row):
    """
    Create a product from a row of a CSV file.

    Args:
        row: A dictionary that maps the name of a column to a value.

    Returns:
        The new product.

    Raises:
        ValueError: If the row is None or if a required value is missing.
    """
    # Make sure that the row is usable before we start.
    check_not_none(row, "row")
    for column in ["sku", "name", "price"]:
        if not is_valid_value(row.get(column)):
            raise ValueError("The column '" + column + "' must not be empty.")

    # Use default values for the columns that are not required.
    price = parse_amount(row["price"])
    weight = get_value_or_default(row, "weight", "0.5")
    category = get_value_or_default(row, "category", "general")
    tax_class = get_value_or_default(row, "tax_class", "standard")

    product = Product(row["sku"], row["name"], price, weight, category, tax_class)
    return product


def load_products(path):
    """
    Load all products from a CSV file.

    Args:
        path: The path of the file.

    Returns:
        A tuple of two lists. The first one holds the products and the second
        one holds a message for each row that could not be read.

    Raises:
        OSError: If the file cannot be read.
    """
    # Create the products one by one and remember the rows with errors.
    products = []
    messages = []
    for number, row in enumerate(read_csv_rows(path)):
        try:
            product = create_product_from_row(row)
            products.append(product)
        except ValueError as error:
            messages.append("Row " + str(number + 1) + ": " + str(error))

    return products, messages


def create_orders_from_rows(rows):
    """
    Create orders from rows in which every row is one line of an order.

    Args:
        rows: A list of dictionaries with the columns of the order lines.

    Returns:
        A list of orders in the order in which they occur in the rows.

    Raises:
        ValueError: If the rows are None.
    """
    # Make sure that the rows are usable before we start.
    check_not_none(rows, "rows")

    # Create a new order whenever we see a new identifier.
    orders_by_id = {}
    for row in rows:
        order_id = row["order_id"]
        if order_id not in orders_by_id:
            placed_on = parse_date(row["placed_on"])
            orders_by_id[order_id] = Order(order_id, row["customer_id"], placed_on)

        # Add the line to the order that it belongs to.
        quantity = int(row["quantity"])
        unit_price = parse_amount(row["unit_price"])
        line = OrderLine(row["sku"], quantity, unit_price)
        orders_by_id[order_id].add_line(line)

    # Collect the orders in a list.
    result_list = []
    for order_id in orders_by_id:
        result_list.append(orders_by_id[order_id])

    return result_list

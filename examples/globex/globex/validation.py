"""
Functions that find mistakes in products, customers and orders.

Every function returns a list of messages. An empty list means that no mistake
was found.
"""

from globex.helpers import build_result_list
from globex.helpers import check_not_none
from globex.helpers import is_valid_value


def is_valid_email(email):
    """
    Decide whether a text looks like an email address.

    Args:
        email: The text to look at.

    Returns:
        True if the text looks like an email address, otherwise False.
    """
    # An empty text is not an email address.
    if not is_valid_value(email):
        return False

    # There must be exactly one at sign with something on both sides.
    parts = email.strip().split("@")
    if len(parts) != 2:
        return False
    name = parts[0]
    domain = parts[1]
    if name == "" or domain == "":
        return False

    # The domain must contain a dot, but not at its start or end.
    if "." not in domain:
        return False
    if domain.startswith(".") or domain.endswith("."):
        return False

    return True


def is_valid_sku(sku):
    """
    Decide whether a text is a stock number such as "TEA-001".

    Args:
        sku: The text to look at.

    Returns:
        True if the text is a stock number, otherwise False.
    """
    # An empty text is not a stock number.
    if not is_valid_value(sku):
        return False

    # There must be letters before the dash and digits after it.
    parts = sku.split("-")
    if len(parts) != 2:
        return False
    if not parts[0].isalpha() or not parts[0].isupper():
        return False
    if not parts[1].isdigit():
        return False

    return True


def validate_product(product):
    """
    Find mistakes in a product.

    Args:
        product: The product to check.

    Returns:
        A list of messages, which is empty if the product is correct.

    Raises:
        ValueError: If the product is None.
    """
    # Make sure that the product is usable before we start.
    check_not_none(product, "product")

    # Check the attributes one by one and collect the messages.
    messages = []
    if not is_valid_sku(product.get_sku()):
        messages.append("The stock number is not valid.")
    if not is_valid_value(product.get_name()):
        messages.append("The name is missing.")
    if product.get_price() <= 0:
        messages.append("The price must be greater than zero.")
    if product.get_weight() < 0:
        messages.append("The weight must not be negative.")

    return messages


def validate_customer(customer):
    """
    Find mistakes in a customer.

    Args:
        customer: The customer to check.

    Returns:
        A list of messages, which is empty if the customer is correct.

    Raises:
        ValueError: If the customer is None.
    """
    # Make sure that the customer is usable before we start.
    check_not_none(customer, "customer")

    # Check the attributes one by one and collect the messages.
    messages = []
    if not is_valid_value(customer.get_customer_id()):
        messages.append("The identifier is missing.")
    if not is_valid_value(customer.get_name()):
        messages.append("The name is missing.")
    if not is_valid_email(customer.get_email()):
        messages.append("The email address is not valid.")

    return messages


def validate_order(order, customers, products):
    """
    Find mistakes in an order.

    Args:
        order: The order to check.
        customers: The list of all customers.
        products: The list of all products.

    Returns:
        A list of messages, which is empty if the order is correct.

    Raises:
        ValueError: If the order, the customers or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(customers, "customers")
    check_not_none(products, "products")

    # Check that the customer exists.
    messages = []
    known_customer_ids = build_result_list(customers, "get_customer_id")
    if order.get_customer_id() not in known_customer_ids:
        messages.append("The customer is not known.")

    # Check that there is at least one line.
    lines = order.get_lines()
    if len(lines) == 0:
        messages.append("The order has no lines.")

    # Check each line.
    known_skus = build_result_list(products, "get_sku")
    for line in lines:
        if line.get_sku() not in known_skus:
            messages.append("The product '" + line.get_sku() + "' is not known.")
        if line.get_quantity() <= 0:
            messages.append("The quantity must be greater than zero.")

    return messages

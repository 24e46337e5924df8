"""
Helper functions that are used by every other module of the back office.

The helpers in this module are small on purpose. They check arguments, collect
values into lists, and keep totals and groups inside dictionaries.
"""

from decimal import Decimal
from decimal import ROUND_HALF_UP


def is_valid_value(value):
    """
    Decide whether a value is present and not empty.

    Args:
        value: The value to look at. It may be of any type.

    Returns:
        True if the value is neither None nor an empty string, otherwise False.
    """
    # A missing value is never valid.
    if value is None:
        return False

    # A string that only contains spaces counts as empty.
    if isinstance(value, str):
        stripped_value = value.strip()
        if stripped_value == "":
            return False

    return True


def check_not_none(value, name):
    """
    Raise an error if a required argument is missing.

    Args:
        value: The argument that was given by the caller.
        name: The name of the argument, which is used in the error message.

    Returns:
        None.

    Raises:
        ValueError: If the value is None.
    """
    if value is None:
        raise ValueError("The argument '" + name + "' must not be None.")


def check_positive(value, name):
    """
    Raise an error if a number is not greater than zero.

    Args:
        value: The number that was given by the caller.
        name: The name of the argument, which is used in the error message.

    Returns:
        None.

    Raises:
        ValueError: If the value is None, zero or negative.
    """
    check_not_none(value, name)
    if value <= 0:
        raise ValueError("The argument '" + name + "' must be greater than zero.")


def round_amount(amount):
    """
    Round an amount of money to two decimal places.

    Args:
        amount: The amount as a Decimal, an integer or a string.

    Returns:
        The rounded amount as a Decimal with two decimal places.

    Raises:
        ValueError: If the amount is None.
    """
    # Make sure that the amount is usable before we start.
    check_not_none(amount, "amount")

    # Convert the amount first, because it may be an integer or a string.
    decimal_amount = Decimal(amount)
    rounded_amount = decimal_amount.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
    return rounded_amount


def build_result_list(items, getter_name):
    """
    Call the same getter on every item and collect the values in a list.

    Args:
        items: The objects to read from.
        getter_name: The name of the get_ method that is called on each object.

    Returns:
        A list with one value for each object, in the same order.

    Raises:
        ValueError: If the items are None.
    """
    # Make sure that the items are usable before we start.
    check_not_none(items, "items")

    # Go through the items and collect the value of each one.
    result_list = []
    for item in items:
        getter = getattr(item, getter_name)
        value = getter()
        result_list.append(value)

    return result_list


def append_to_group(groups, key, item):
    """
    Add an item to the list that belongs to a key, creating the list if needed.

    Args:
        groups: The dictionary of lists that is changed in place.
        key: The key of the group.
        item: The item that is added to the group.

    Returns:
        None.
    """
    # Create an empty list the first time that we see this key.
    if key not in groups:
        groups[key] = []

    groups[key].append(item)


def add_to_total(totals, key, amount):
    """
    Add an amount to the total that belongs to a key, starting at zero.

    Args:
        totals: The dictionary of totals that is changed in place.
        key: The key of the total.
        amount: The amount that is added.

    Returns:
        None.
    """
    # Start at zero the first time that we see this key.
    if key not in totals:
        totals[key] = 0

    totals[key] = totals[key] + amount


def get_value_or_default(mapping, key, default_value):
    """
    Read a value from a dictionary and fall back to a default value.

    Args:
        mapping: The dictionary to read from.
        key: The key to look for.
        default_value: The value that is used if the key is missing or empty.

    Returns:
        The value that was found, or the default value.
    """
    # Use the default value if there is nothing to read from.
    if mapping is None:
        return default_value

    # Use the default value if the key is missing.
    if key not in mapping:
        return default_value

    # Use the default value if the value itself is empty.
    value = mapping[key]
    if not is_valid_value(value):
        return default_value

    return value


def sort_keys_by_value(totals):
    """
    Sort the keys of a dictionary so that the largest value comes first.

    Args:
        totals: A dictionary of numbers.

    Returns:
        A list of the keys. Keys with equal values are sorted by name.

    Raises:
        ValueError: If the totals are None.
    """
    # Make sure that the totals are usable before we start.
    check_not_none(totals, "totals")

    # Build pairs that sort in the order that we need.
    pairs = []
    for key in totals:
        pair = (-totals[key], key)
        pairs.append(pair)
    pairs.sort()

    # Take only the key out of each pair.
    result_list = []
    for pair in pairs:
        result_list.append(pair[1])

    return result_list

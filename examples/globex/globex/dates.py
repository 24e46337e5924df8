"""
Functions that calculate with dates, months and working days.
"""

from datetime import date
from datetime import timedelta

from globex.helpers import append_to_group
from globex.helpers import check_not_none
from globex.helpers import is_valid_value


def get_month_key(day):
    """
    Build the key of the month in which a day lies.

    Args:
        day: The day to look at.

    Returns:
        A string such as "2024-03", which sorts in the order of time.

    Raises:
        ValueError: If the day is None.
    """
    # Make sure that the day is usable before we start.
    check_not_none(day, "day")

    year_text = str(day.year).zfill(4)
    month_text = str(day.month).zfill(2)
    month_key = year_text + "-" + month_text
    return month_key


def get_days_between(start_date, end_date):
    """
    List all days between two dates.

    Args:
        start_date: The first day of the list.
        end_date: The last day of the list.

    Returns:
        A list of days, which is empty if the end lies before the start.

    Raises:
        ValueError: If one of the dates is None.
    """
    # Make sure that the dates are usable before we start.
    check_not_none(start_date, "start_date")
    check_not_none(end_date, "end_date")

    # Go forward day by day until we have passed the end.
    result_list = []
    current_day = start_date
    while current_day <= end_date:
        result_list.append(current_day)
        current_day = current_day + timedelta(days=1)

    return result_list


def is_working_day(day, holidays):
    """
    Decide whether people work on a certain day.

    Args:
        day: The day to look at.
        holidays: A list of public holidays, or None if there are none.

    Returns:
        True if the day is a working day, otherwise False.

    Raises:
        ValueError: If the day is None.
    """
    # Make sure that the day is usable before we start.
    check_not_none(day, "day")

    # Saturday has the number five and Sunday has the number six.
    if day.weekday() >= 5:
        return False

    # Nobody works on a public holiday.
    if holidays is not None:
        if day in holidays:
            return False

    return True


def add_working_days(day, day_count, holidays=None):
    """
    Go forward by a number of working days.

    Args:
        day: The day from which we start.
        day_count: The number of working days to go forward.
        holidays: A list of public holidays, or None if there are none.

    Returns:
        The working day that was reached.

    Raises:
        ValueError: If the day is None or if the day count is negative.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(day, "day")
    if day_count < 0:
        raise ValueError("The number of working days must not be negative.")

    # Only working days are counted while we go forward.
    current_day = day
    remaining_days = day_count
    while remaining_days > 0:
        current_day = current_day + timedelta(days=1)
        if is_working_day(current_day, holidays):
            remaining_days = remaining_days - 1

    return current_day


def group_orders_by_month(orders):
    """
    Group orders by the month in which they were placed.

    Args:
        orders: The list of orders to group.

    Returns:
        A dictionary that maps a month key to a list of orders.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Put each order into the group of its month.
    groups = {}
    for order in orders:
        month_key = get_month_key(order.get_placed_on())
        append_to_group(groups, month_key, order)

    return groups


def parse_date(text):
    """
    Read a date from a text such as "2024-03-31".

    Args:
        text: The text to read.

    Returns:
        The date that was read.

    Raises:
        ValueError: If the text is empty or if it is not a date.
    """
    # Make sure that the text is usable before we start.
    if not is_valid_value(text):
        raise ValueError("The text of a date must not be empty.")

    # A date has exactly three parts.
    parts = text.strip().split("-")
    if len(parts) != 3:
        raise ValueError("The text '" + text + "' is not a date.")

    year = int(parts[0])
    month = int(parts[1])
    day = int(parts[2])
    result = date(year, month, day)
    return result

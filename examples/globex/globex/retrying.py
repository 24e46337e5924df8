"""
Functions that repeat an action until it succeeds.
"""

import time

from globex.helpers import check_not_none
from globex.helpers import check_positive


class RetryError(Exception):
    """
    The error that is raised when an action has failed too often.
    """


def calculate_delays(attempt_count, first_delay, factor=2, largest_delay=60):
    """
    Calculate how long to wait after each failed attempt.

    Args:
        attempt_count: The number of attempts.
        first_delay: The number of seconds to wait after the first attempt.
        factor: The number by which each delay is multiplied.
        largest_delay: The largest number of seconds to wait.

    Returns:
        A list of delays in seconds. There is none after the last attempt.

    Raises:
        ValueError: If the number of attempts or the first delay is not positive.
    """
    # Make sure that the arguments are usable before we start.
    check_positive(attempt_count, "attempt_count")
    check_positive(first_delay, "first_delay")

    # Each delay is longer than the one before, up to the largest delay.
    result_list = []
    delay = first_delay
    for attempt in range(attempt_count - 1):
        if delay > largest_delay:
            delay = largest_delay
        result_list.append(delay)
        delay = delay * factor

    return result_list


def retry_action(action, attempt_count=3, first_delay=1, sleep=time.sleep):
    """
    Repeat an action until it succeeds.

    Args:
        action: The function that is called without arguments.
        attempt_count: The largest number of attempts.
        first_delay: The number of seconds to wait after the first attempt.
        sleep: The function that waits for a number of seconds.

    Returns:
        The value that the action returned.

    Raises:
        ValueError: If the action is None.
        RetryError: If every attempt has failed.
    """
    # Make sure that the action is usable before we start.
    check_not_none(action, "action")

    # Call the action again and again until it succeeds.
    delays = calculate_delays(attempt_count, first_delay)
    last_error = None
    for attempt in range(attempt_count):
        try:
            result = action()
            return result
        except OSError as error:
            last_error = error

        # Wait before the next attempt, if there is one.
        if attempt < len(delays):
            sleep(delays[attempt])

    # Every attempt has failed.
    message = "The action has failed " + str(attempt_count) + " times."
    raise RetryError(message) from last_error

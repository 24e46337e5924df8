"""
Events that tell other parts of the back office what has happened.
"""

from globex.helpers import append_to_group
from globex.helpers import check_not_none
from globex.helpers import is_valid_value


class Event:
    """
    Something that has happened to an order at a certain time.
    """

    def __init__(self, event_type, order_id, happened_at, details=None):
        """
        Create a new event.

        Args:
            event_type: The type of the event, such as "order_placed".
            order_id: The identifier of the order.
            happened_at: The time at which the event happened.
            details: A dictionary with more information, or None.
        """
        self.event_type = event_type
        self.order_id = order_id
        self.happened_at = happened_at
        if details is None:
            self.details = {}
        else:
            self.details = details

    def get_event_type(self):
        """
        Return the type of the event.
        """
        return self.event_type

    def get_order_id(self):
        """
        Return the identifier of the order.
        """
        return self.order_id

    def get_happened_at(self):
        """
        Return the time at which the event happened.
        """
        return self.happened_at

    def get_details(self):
        """
        Return the dictionary with more information.
        """
        return self.details


class EventBus:
    """
    A place where functions can wait for events.
    """

    def __init__(self):
        """
        Create an event bus without any functions.
        """
        self.handlers = {}
        self.errors = []

    def get_errors(self):
        """
        Return the list of errors that were raised by the functions.
        """
        return self.errors

    def add_handler(self, event_type, handler):
        """
        Call a function whenever an event of a certain type happens.

        Args:
            event_type: The type of the event.
            handler: The function that is called with the event.

        Raises:
            ValueError: If the event type is empty or if the handler is None.
        """
        check_not_none(handler, "handler")
        if not is_valid_value(event_type):
            raise ValueError("The event type must not be empty.")
        append_to_group(self.handlers, event_type, handler)

    def publish(self, event):
        """
        Call all functions that wait for an event.

        Args:
            event: The event that has happened.

        Returns:
            The number of functions that were called without an error.

        Raises:
            ValueError: If the event is None.
        """
        check_not_none(event, "event")

        # Nothing has to be done if nobody waits for this type of event.
        event_type = event.get_event_type()
        if event_type not in self.handlers:
            return 0

        # An error in one function must not stop the other functions.
        success_count = 0
        for handler in self.handlers[event_type]:
            try:
                handler(event)
                success_count = success_count + 1
            except Exception as error:
                self.errors.append(error)

        return success_count


def group_events_by_order(events):
    """
    Group events by the order that they belong to.

    Args:
        events: The list of events to group.

    Returns:
        A dictionary that maps an order identifier to a list of events.

    Raises:
        ValueError: If the events are None.
    """
    # Make sure that the events are usable before we start.
    check_not_none(events, "events")

    # Put each event into the group of its order.
    groups = {}
    for event in events:
        order_id = event.get_order_id()
        append_to_group(groups, order_id, event)

    return groups

"""
Functions that search and change the catalog of products.
"""

from globex.helpers import append_to_group
from globex.helpers import check_not_none
from globex.helpers import is_valid_value
from globex.helpers import sort_keys_by_value


def build_product_index(products):
    """
    Build a dictionary in which products can be looked up by stock number.

    Args:
        products: The list of products.

    Returns:
        A dictionary that maps a stock number to a product.

    Raises:
        ValueError: If the products are None or if a stock number occurs twice.
    """
    # Make sure that the products are usable before we start.
    check_not_none(products, "products")

    # Add the products one by one and refuse duplicates.
    index = {}
    for product in products:
        sku = product.get_sku()
        if sku in index:
            raise ValueError("The stock number '" + sku + "' occurs twice.")
        index[sku] = product

    return index


def group_products_by_category(products):
    """
    Group products by their category.

    Args:
        products: The list of products to group.

    Returns:
        A dictionary that maps the name of a category to a list of products.

    Raises:
        ValueError: If the products are None.
    """
    # Make sure that the products are usable before we start.
    check_not_none(products, "products")

    # Put each product into the group of its category.
    groups = {}
    for product in products:
        category = product.get_category()
        append_to_group(groups, category, product)

    return groups


def find_cheapest_product(products, category):
    """
    Find the cheapest product of a category.

    Args:
        products: The list of products to search in.
        category: The name of the category.

    Returns:
        The cheapest product, or None if the category has no products.

    Raises:
        ValueError: If the products are None.
    """
    # Make sure that the products are usable before we start.
    check_not_none(products, "products")

    # Remember the best product that we have seen so far.
    cheapest_product = None
    for product in products:
        if product.get_category() != category:
            continue
        if cheapest_product is None:
            cheapest_product = product
        elif product.get_price() < cheapest_product.get_price():
            cheapest_product = product

    return cheapest_product


def split_into_words(text):
    """
    Split a text into lower case words without punctuation.

    Args:
        text: The text to split.

    Returns:
        A list of words in the order in which they occur.
    """
    # An empty text does not contain any words.
    if not is_valid_value(text):
        return []

    # Replace every character that is not a letter or a digit by a space.
    cleaned_text = ""
    for character in text.lower():
        if character.isalnum():
            cleaned_text = cleaned_text + character
        else:
            cleaned_text = cleaned_text + " "

    words = cleaned_text.split()
    return words


def search_products(products, query, result_limit=10):
    """
    Search for products whose name contains the words of a query.

    Args:
        products: The list of products to search in.
        query: The words that the user has typed.
        result_limit: The largest number of products that are returned.

    Returns:
        A list of products. Products that match more words come first.

    Raises:
        ValueError: If the products are None.
    """
    # Make sure that the products are usable before we start.
    check_not_none(products, "products")

    # Count how many words of the query occur in each product.
    query_words = split_into_words(query)
    scores = {}
    products_by_sku = {}
    for product in products:
        product_words = split_into_words(product.get_name() + " " + product.get_category())
        score = 0
        for word in query_words:
            if word in product_words:
                score = score + 1
        if score > 0:
            sku = product.get_sku()
            scores[sku] = score
            products_by_sku[sku] = product

    # Collect the best products until the limit is reached.
    result_list = []
    for sku in sort_keys_by_value(scores):
        if len(result_list) >= result_limit:
            break
        result_list.append(products_by_sku[sku])

    return result_list


def find_missing_skus(products, skus):
    """
    Find the stock numbers that do not exist in the catalog.

    Args:
        products: The list of products in the catalog.
        skus: The stock numbers to look for.

    Returns:
        A list of the stock numbers that are missing, without duplicates.

    Raises:
        ValueError: If the products or the stock numbers are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(products, "products")
    check_not_none(skus, "skus")

    # Collect every stock number that is neither known nor already collected.
    index = build_product_index(products)
    result_list = []
    for sku in skus:
        if sku in index:
            continue
        if sku in result_list:
            continue
        result_list.append(sku)

    return result_list

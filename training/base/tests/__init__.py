"""Fast tests of the recipe without a network. Most need the standard library only; those that need more skip."""

"""The mathematics and base classes that methods share."""

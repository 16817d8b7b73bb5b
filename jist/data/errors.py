"""Errors in the data; wrong arguments raise ValueError instead."""


class DataError(Exception):
    """A data set is missing, incomplete or laid out in an unexpected way."""


class UnreadableImageError(DataError):
    """An image cannot be decoded; the message names it."""


class EmptyImageError(DataError):
    """An image has no visible patch; the message names it."""

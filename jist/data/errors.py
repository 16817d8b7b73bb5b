"""What can be wrong with data, as opposed to with arguments (those raise ValueError)."""


class DataError(Exception):
    """A data set cannot be used as it lies there."""


class UnreadableImageError(DataError):
    """An image cannot be decoded; the message names it."""


class EmptyImageError(DataError):
    """An image has no visible patch; the message names it."""

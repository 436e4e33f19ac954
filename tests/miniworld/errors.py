"""The world's one error."""


class MiniWorldError(Exception):
    """A file of the world is missing or damaged; the message says what to do."""

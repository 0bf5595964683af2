"""What keeps a scrub from saying anything."""


class CannotScrub(Exception):
    """Nothing can be said of the store; the message says what to do."""

"""What goes wrong in a laboratory."""


class LabError(Exception):
    """The laboratory can't be built or run; the message is one sentence for a person."""

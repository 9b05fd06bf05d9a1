"""What goes wrong in a laboratory."""


class LabError(Exception):
    """The laboratory can't be built or run; the message is one sentence for a person."""


class NodeEnded(LabError):
    """A node's process ended by itself; the message has its last words."""

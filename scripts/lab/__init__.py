"""The laboratory: a client, three nodes and four web servers in network namespaces.

`Lab` builds the networks and the servers and takes them down on every exit; `Cluster` runs Steerage in its nodes;
`load` makes HTTP requests from its client. `plan` holds every address.
"""

from .cluster import Cluster
from .errors import LabError
from .lab import Interrupted, Lab

__all__ = ["Cluster", "Interrupted", "Lab", "LabError"]

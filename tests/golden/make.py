"""Writes the captures that a node is to receive, and what it has to make of them.

    make.py first FOLDER    all cases but those that need answers of servers
    make.py answered FOLDER those: the servers answer what `nat-openers` made the node send

For each case it writes CASE.front.in.pcap and CASE.back.in.pcap, and the frames that the node must answer with, in any
order, as CASE.front.expected.pcap and CASE.back.expected.pcap. FOLDER/cases.json lists the cases in order, each with
the family of its backplane and the packets that the node has to refuse, by reason.
"""

import json
import sys
from pathlib import Path

import cases

FIRST = {
    "nat-openers": (cases.nat_openers, 4),
    "dsr-l2": (cases.dsr, 4),
    "ipip": (cases.ipip, 4),
    "gue": (cases.gue, 4),
    "steered-out": (cases.steered_out, 4),
    "steered-out-6": (cases.steered_out, 6),
    "steered-in": (cases.steered_in, 4),
    "steered-in-6": (cases.steered_in, 6),
    "local": (cases.local, 4),
    "too-big": (cases.too_big, 4),
    "malformed": (cases.malformed, 4),
}
ANSWERED = {"nat": (cases.nat, 4)}


def main() -> None:
    stage, folder = sys.argv[1], Path(sys.argv[2])
    made = []
    for name, (fill, over) in {"first": FIRST, "answered": ANSWERED}[stage].items():
        case = cases.Case(over, folder)
        fill(case)
        case.write(name)
        made.append({"name": name, "backplane": over, "drops": case.drops})
    (folder / "cases.json").write_text(json.dumps(made, indent=1))


main()

"""What a row is, wherever it was measured."""

# The product's own rows, which the measuring program knows.
PRODUCT = [
    "dsr_ipip", "dsr_gue", "dsr_l2", "dsr_session", "nat_hit", "nat_hit_tcp", "nat_reply", "nat_new", "steered_out", "steered_in",
]
# The fewest flows of a row; a lone flow's packets open one connection only.
FEWEST = {"nat_new": 4096}

# Fields that every row has; null where a row has no such figure.
FIELDS = [
    "name", "family", "flows", "io", "ns_per_packet", "spread", "least", "mpps", "ratio_to_limit",
    "p50_turn_ns", "p99_turn_ns", "max_turn_ns", "runs", "speedup", "reason",
]


def complete(row):
    """The row with all fields, in their order; `mpps` follows from `ns_per_packet`."""
    unknown = row.keys() - set(FIELDS)
    if unknown:
        raise ValueError(f"row {row['name']} has fields that rows don't have: {', '.join(sorted(unknown))}")
    whole = {field: row.get(field) for field in FIELDS}
    if whole["ns_per_packet"]:
        whole["mpps"] = round(1e3 / whole["ns_per_packet"], 3)
    return whole

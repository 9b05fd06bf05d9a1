"""Two runs beside each other."""
import json

# A row is marked beyond this ratio, and counts as slower beyond its spread and this share.
MARKED, ALLOWED = 1.05, 0.10
KEY = ["name", "family", "flows", "io"]


class Unusable(Exception):
    """Not a file that perf/run wrote."""


def load(path):
    """The rows of an earlier run by what they are."""
    try:
        rows = json.loads(path.read_text())["rows"]
        measured = [row for row in rows if row["ns_per_packet"] is not None]
        return {tuple(row[k] for k in KEY): (float(row["ns_per_packet"]), float(row["spread"])) for row in measured}
    except OSError as why:
        raise Unusable(why.strerror) from why
    except (ValueError, TypeError, KeyError) as why:
        raise Unusable("it holds no results of perf/run") from why


def report(old, rows):
    """Prints new over old for each row that both have; 1 if one got slower by more than its spread and a tenth, else 0."""
    slower = both = 0
    print("\ncompared: row, old ns, new ns, new/old")
    for row in rows:
        key = tuple(row[k] for k in KEY)
        if key not in old or row["ns_per_packet"] is None:
            continue
        both += 1
        before, spread = old[key]
        after = row["ns_per_packet"]
        ratio = after / before
        bad = after > before * (1 + ALLOWED) + max(spread, row["spread"])
        slower += bad
        mark = "SLOWER" if bad else "*" if ratio > MARKED else ""
        name = " ".join(str(k) for k in key if k is not None)
        print(f"{name:<40} {before:9.1f} {after:9.1f} {ratio:6.2f} {mark}".rstrip())
    if not both:
        print("the two runs have no row in common")
        return 1
    print(f"{both} rows compared, {slower} slower by more than their spread and {ALLOWED:.0%}")
    return int(slower > 0)

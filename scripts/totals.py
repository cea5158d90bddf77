#!/usr/bin/env python3
"""Totals of an Online Retail file, computed independently of Cartwright.

    scripts/totals.py FILE.csv[.gz]                             print the totals
    scripts/totals.py FILE.csv[.gz] --json                      the same, for machines
    scripts/totals.py FILE.csv[.gz] --warehouse warehouse.db    compare, class by class and to the penny
    scripts/totals.py FILE.csv[.gz] --shuffle OUT.csv[.gz]      write the same rows in another order

Standard library only, decimals throughout, and no line of it shared with the importer: two programs that
agree by the rules of examples/online-retail/README.md are better evidence than one that agrees with itself.
Exit code 1 when the warehouse disagrees.
"""

import argparse
import csv
import gzip
import io
import json
import random
import sqlite3
import sys
from collections import OrderedDict
from decimal import ROUND_HALF_EVEN, Decimal

PENNY = Decimal("0.01")
HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]


def opened(path, mode="rt"):
    """A text stream over a plain or gzip-compressed file."""
    if "w" in mode:
        if path.endswith(".gz"):
            # No name and no time inside, so that the same rows give the same bytes.
            raw = gzip.GzipFile(filename="", fileobj=open(path, "wb"), mode="wb", compresslevel=9, mtime=0)
            return io.TextIOWrapper(raw, encoding="utf-8", newline="")
        return open(path, "w", encoding="utf-8", newline="")
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return (gzip.open if zipped else open)(path, "rt", encoding="utf-8", newline="")


def read(path):
    with opened(path) as stream:
        rows = list(csv.reader(stream))
    if rows[0] != HEADER:
        sys.exit(f"{path}: the header is {rows[0]}, expected {HEADER}")
    return rows[1:]


def is_product(code):
    """Five digits and an optional suffix, or one of the shop's three lettered ranges; the rest are charges."""
    lower = code.lower()
    return code[:5].isdecimal() and len(code) >= 5 or lower.startswith(("dcgs", "gift_")) or lower == "pads"


def value(row):
    return (Decimal(row[3]) * Decimal(row[5])).quantize(PENNY, ROUND_HALF_EVEN)


def totals(rows):
    classes = {"order_lines": [], "refund_lines": [], "adjustments_bad_debt": [], "adjustments_stock": []}
    for row in rows:
        invoice, quantity = row[0], int(row[3])
        if invoice.startswith("A"):
            classes["adjustments_bad_debt"].append(row)
        elif invoice.startswith("C"):
            classes["refund_lines"].append(row)
        elif quantity <= 0:
            classes["adjustments_stock"].append(row)
        else:
            classes["order_lines"].append(row)
    assert sum(map(len, classes.values())) == len(rows)

    order_rows, refund_rows = classes["order_lines"], classes["refund_lines"]
    owner = OrderedDict()
    for row in order_rows + refund_rows:
        owner[row[0]] = owner.get(row[0]) or row[6]
    orders = {row[0] for row in order_rows}
    refunds = {row[0] for row in refund_rows}
    charges = [row for row in order_rows if not is_product(row[1])]
    pence = lambda rows: int(sum(map(value, rows), Decimal(0)) * 100)
    return {
        "rows": len(rows),
        "order_lines": len(order_rows),
        "refund_lines": len(refund_rows),
        "adjustments_bad_debt": len(classes["adjustments_bad_debt"]),
        "adjustments_stock": len(classes["adjustments_stock"]),
        "orders": len(orders),
        "refunds": len(refunds),
        "charge_lines": len(charges),
        "customers": len({who for who in owner.values() if who}),
        "guests": sum(1 for who in owner.values() if not who),
        "revenue_pence": pence(order_rows),
        "charges_pence": pence(charges),
        "refunded_pence": -pence(refund_rows),
        "quantity": sum(int(row[3]) for row in order_rows),
        "duplicate_rows": len(rows) - len(set(map(tuple, rows))),
    }


# What each figure is in the warehouse. Customers and guests are counted by their pseudonyms.
WAREHOUSE = {
    "orders": "select count(*) from fact_order",
    "order_lines": "select count(*) from fact_order_line",
    "charge_lines": "select count(*) from fact_order_line where is_charge = 1",
    "quantity": "select coalesce(sum(quantity), 0) from fact_order_line",
    "revenue_pence": "select coalesce(sum(total_minor), 0) from fact_order",
    "charges_pence": "select coalesce(sum(amount_minor), 0) from fact_order_line where is_charge = 1",
    "refunds": "select count(*) from fact_refund",
    "refunded_pence": "select coalesce(sum(amount_minor), 0) from fact_refund",
    "customers": "select count(*) from (select subject from fact_order union select subject from fact_refund)"
    " where subject like 'u:%'",
    "guests": "select count(*) from (select subject from fact_order union select subject from fact_refund)"
    " where subject like 'a:%'",
}
# The sum of the lines is its own figure: it must equal the sum of the orders.
CROSS = {"revenue_pence": "select coalesce(sum(amount_minor), 0) from fact_order_line"}


def compare(expected, path):
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    agrees = True
    checks = [(name, name, sql) for name, sql in WAREHOUSE.items()]
    checks += [(name, f"{name} (lines)", sql) for name, sql in CROSS.items()]
    checks.append((None, "quarantined", "select count(*) from quarantine"))
    for name, label, sql in checks:
        found, wanted = database.execute(sql).fetchone()[0], expected[name] if name else 0
        agrees &= found == wanted
        print(f"{label:24} {wanted:>14,} {found:>14,}  {'equal' if found == wanted else 'DIFFERENT'}")
    return agrees


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--warehouse", metavar="DB", help="compare with this SQLite warehouse")
    parser.add_argument("--shuffle", metavar="OUT", help="write the rows in another order")
    parser.add_argument("--seed", type=int, default=1, help="the order that --shuffle writes")
    options = parser.parse_args()

    rows = read(options.file)
    if options.shuffle:
        random.Random(options.seed).shuffle(rows)
        with opened(options.shuffle, "wt") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(rows)
        return 0
    expected = totals(rows)
    if options.json:
        print(json.dumps(expected, indent=2))
    elif options.warehouse:
        print(f"{'':24} {'file':>14} {'warehouse':>14}")
        return 0 if compare(expected, options.warehouse) else 1
    else:
        for name, figure in expected.items():
            print(f"{name:24} {figure:>14,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

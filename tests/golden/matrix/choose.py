"""Choose the cases of the matrix anew, so that every pair of levels that exlb takes stands in one.

After a change of the factors, or of what `understand` refuses:

    python -m tests.golden.matrix.choose && pytest tests/golden --update-golden
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from tests.golden.matrix.factors import CASES_FILE, FACTORS, Case, Pair, all_pairs, is_valid, pairs


def choose() -> Iterator[Case]:
    """Yield cases until no pair is left.

    Each begins with the first pair that is in none yet, and takes for one factor after the other the level that
    brings most of the others: AETG (Cohen and others, 1997) without its random candidates.
    """
    left = dict.fromkeys(all_pairs())
    while left:
        case = dict(next(iter(left)))
        for factor in sorted(FACTORS.keys() - case.keys(), key=list(FACTORS).index):
            case[factor] = max(_levels(case, factor), key=lambda level: _gain(case, factor, level, left))
        for pair in pairs(case):
            left.pop(pair, None)
        yield case


def _levels(case: Case, factor: str) -> list[str]:
    return [level for level in FACTORS[factor] if is_valid({**case, factor: level})]


def _gain(case: Case, factor: str, level: str, left: dict[Pair, None]) -> int:
    return sum(pair in left for pair in pairs({**case, factor: level}))


if __name__ == "__main__":
    with CASES_FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["case", *FACTORS], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"case": f"{number:02}", **case} for number, case in enumerate(choose(), 1))

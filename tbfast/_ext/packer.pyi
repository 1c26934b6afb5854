class Totals:
    points: int
    nbytes: int
    min_ts: int
    max_ts: int
    odd: list[tuple[int, int, int]]

"""The thefts of tickets whose start carries keyed signs, and all else that `benchmarks.signs` measures of them."""

"""What thieves do to a marked ticket: settings, tickets, and one row a theft; `benchmarks.survival` makes the table."""

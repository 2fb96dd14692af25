"""The pruning methods, a file each, and what only a few of them share."""

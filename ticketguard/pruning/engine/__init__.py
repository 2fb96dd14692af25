"""What the pruning methods share: the problem, what it requires, choice of masks, searches, trainings, results."""

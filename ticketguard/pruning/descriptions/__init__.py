"""What each pruning method is, by name: a summary and its options. None of it needs torch."""

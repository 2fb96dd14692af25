"""The verifier: exact statistics, and what they say about a suspect."""

"""How marks get into training: drawn before it or during a search, kept through it, committed to after it."""

"""The embedding module: what writes the marks of an owner into a ticket."""

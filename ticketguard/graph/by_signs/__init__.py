"""Put a suspect's channels into the order of start weights, by the signs of their anchors and by where edges are.

Every position of a start is kept. Training keeps the signs of most edges, which says much of where they belong; and it
keeps weights that start large rather than small ones, which says less, and is left where the signs are not.
"""

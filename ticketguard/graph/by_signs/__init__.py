"""Put a suspect's channels into the order of start weights, by the signs of their anchors.

Every position of a start is kept, so where edges are says little; that their signs are those the start had says much.
"""

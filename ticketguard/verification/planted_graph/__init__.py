"""How the planted graph is found again in a suspect's weights."""

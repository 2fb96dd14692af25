"""Who claims what: owner keys, public claims, private vaults. Nothing here imports torch."""

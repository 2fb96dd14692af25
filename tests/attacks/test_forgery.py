from __future__ import annotations

import numpy as np

import ticketguard as tg
from ticketguard.attacks import Forgery, OwnMarks, Published, Victim
from ticketguard.credentials.claim import read_claim, sign_claim


def test_marks_of_ones_own_make_a_proper_claim_that_is_not_supported(victim: Victim) -> None:
    owner, forger = tg.Owner.generate("Ada"), tg.Owner.generate("Eve")
    plan = tg.prepare(victim.ticket, owner=owner, marks=[tg.PlantedGraph(share=0.2)], level_bits=20)
    network = victim.network()
    plan.start(network)
    marked, credential = plan.finish(network)
    attack: Forgery = OwnMarks(forger=forger, level_bits=20)
    published = Published(ticket=marked, claim=credential.claim, build=victim.build)
    forged = attack.run(published, generator=np.random.default_rng(0))
    forged.check()
    assert read_claim(sign_claim(forged.claim, forger)) == forged.claim
    assert forged.claim.owner_public_key == forger.public_key
    suspect = tg.Checkpoint(dict(marked.weights))
    assert tg.verify(suspect, credential, level_bits=20).status == "supported"
    assert tg.verify(suspect, forged, level_bits=20).status == "not_supported"
    again = attack.run(published, generator=np.random.default_rng(0))
    assert again.vault.secret == forged.vault.secret

"""Every rule that a reader applies, by its number in signatures/*.md, and the tests that fail where it is not applied.

Nothing here is trained. Claims are forged by somebody who signs them properly with a key of their own and computes the
commitment anew wherever it does not have to be wrong, so that only the rule under test can refuse them.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

import ticketguard as tg
from tests.verification.claims import (
    EVE,
    GROUPS,
    PLANTED,
    RECIPE,
    SHAPES,
    TICKET,
    Suspect,
    evidence,
    mark,
    marked_weights,
    permuted,
    planted_mark,
    signed,
    trigger_mark,
    unmarked_ticket,
)
from ticketguard.errors import CredentialError, UnknownVersionError, UnverifiableError
from ticketguard.ticket import Mask
from ticketguard.verification import registry
from ticketguard.verification.interface import Inquiry

ROOT = Path(__file__).parents[2]

PAGE = "verification/test_by_the_page.py"
TICKET_PAGE = "ticket/test_ticket_by_the_page.py"
START = "ticket/test_start_reference.py"
CODE, CODE_PAGE = "verification/test_qr_code.py", "verification/test_code_by_the_page.py"
SIGNS, SIGNS_PAGE = "verification/test_start_signs.py", "verification/test_signs_by_the_page.py"

# Number of the rule → files under tests/ and their tests; "" is this file.
RULES: dict[str, dict[str, tuple[str, ...]]] = {
    # claim-and-vault.md
    "CV1": {
        "credentials/test_claim.py": ("large_files_are_refused_before_they_are_parsed",),
        "credentials/test_canonical.py": ("values_are_counted_up_to_the_limit", "deep_nesting_is_refused",
                                          "kinds_without_one_obvious_spelling_are_refused"),
    },
    "CV2": {"credentials/test_claim.py": ("other_envelopes_are_refused",)},
    "CV3": {"credentials/test_claim.py": ("signed_statements_of_another_form_are_refused",)},
    "CV4": {"credentials/test_claim.py": ("each_single_byte_of_a_claim_flipped_is_refused",
                                          "a_claim_that_an_editor_touched_is_the_same_claim",
                                          "other_bytes_around_a_claim_are_refused")},
    "CV5": {"credentials/test_claim.py": ("unknown_versions_are_refused",)},
    "CV6": {"credentials/test_edwards.py": ("a_claim_under_a_key_that_nobody_owns_is_refused",)},
    "CV7": {"credentials/test_claim.py": ("thief_cannot_put_another_name_and_key_over_a_claim",
                                          "signature_over_another_payload_is_refused")},
    "CV8": {"credentials/test_edwards.py": ("a_signature_whose_first_half_is_not_of_prime_order_is_refused",
                                            "a_signature_whose_second_half_is_not_below_the_order_is_refused")},
    "CV9": {"credentials/test_claim.py": ("signed_statements_of_another_form_are_refused",)},
    "CV10": {"": ("a_claim_may_ask_for_more_than_the_verifier_does_and_never_for_less",)},
    "CV11": {"credentials/test_claim.py": ("a_claim_that_an_editor_touched_is_the_same_claim",)},
    "CV12": {"credentials/test_age_passphrase.py": ("work_above_the_limit_is_refused_by_name",)},
    "CV13": {"credentials/test_vault.py": ("a_header_beyond_all_bounds_is_refused_before_it_is_parsed",
                                           "a_vault_that_could_not_be_opened_is_refused_before_anything_is_trained_for_it")},
    "CV14": {
        "": ("bound_groups_that_cannot_be_used_are_refused",),
        "graph/test_groups.py": ("malformed_groups_are_refused", "a_position_belongs_to_one_channel",
                                 "more_groups_than_any_network_has_are_refused",
                                 "members_that_disagree_on_the_channels_are_refused"),
    },
    "CV15": {"": ("what_the_commitment_does_not_give_is_refused",)},
    "CV16": {"": ("groups_that_are_not_the_bound_ones_are_refused",)},
    "CV17": {"": ("channel_groups_that_the_commitment_does_not_bind_are_not_used", "notes_change_no_verdict")},
    # keyed-draws.md
    "KD1": {"test_keyed.py": ("commitment_is_the_hash_that_the_page_writes_down",
                              "commitment_depends_on_every_field")},
    "KD2": {"ticket/test_ticket.py": ("digests_are_the_published_ones",)},
    "KD3": {"test_keyed.py": ("streams_are_the_published_ones",
                              "any_sequence_of_draws_agrees_with_a_word_by_word_implementation")},
    "KD4": {"test_keyed.py": ("integers_of_a_bound_that_rejects_often_are_uniform", "draws_are_the_published_ones")},
    "KD5": {"test_keyed.py": ("distinct_refuses_more_than_half_of_the_integers", "draws_are_the_published_ones")},
    # planted-graph.md
    "PG1": {"": ("another_version_of_a_scheme_is_refused",)},
    "PG2": {"": ("committed_parameters_out_of_range_are_refused", "what_the_commitment_does_not_give_is_refused")},
    "PG3": {"": ("channel_groups_that_the_commitment_does_not_bind_are_not_used",)},
    "PG4": {"ticket/test_ticket.py": ("a_reference_of_more_layers_or_longer_names_than_any_network_is_refused",)},
    "PG5": {PAGE: ("a_verdict_is_what_the_page_computes",),
            "embedding/test_planted_graph.py": ("secret_edges_are_the_published_ones",)},
    "PG6": {"checkpoints/matching/test_layers.py": ("matching_reads_no_values",),
            "verification/test_networks.py": ("p_is_as_rare_as_it_says_where_content_chose_the_layers",),
            "verification/test_stored_in_blocks.py": (
                "a_copy_that_is_stored_in_blocks_is_read_as_one_that_is_not",),
            "verification/test_stored_otherwise.py": ("a_copy_is_read_however_it_is_stored",)},
    "PG7": {PAGE: ("a_mask_beside_its_weight_is_multiplied_into_it",
                 "what_is_not_finite_counts_as_missing",
                 "layers_without_finite_floats_of_the_right_shape_are_left_out")},
    "PG8": {"verification/test_statistics.py": ("a_tail_is_never_smaller_than_exact_rational_arithmetic_gives",),
            PAGE: ("a_verdict_is_what_the_page_computes",)},
    "PG9": {PAGE: ("every_reading_is_what_the_page_says",)},
    "PG10": {PAGE: ("every_reading_is_what_the_page_says", "equal_magnitudes_are_taken_in_order_of_position")},
    "PG11": {PAGE: ("every_reading_is_what_the_page_says",)},
    "PG12": {PAGE: ("every_reading_is_what_the_page_says",)},
    "PG13": {PAGE: ("every_reading_is_what_the_page_says",)},
    "PG14": {"": ("a_permuted_copy_is_aligned_to_the_reference_by_bound_groups",
                  "what_the_commitment_does_not_give_is_refused")},
    "PG15": {"verification/test_planted_graph.py": ("what_could_not_be_aligned_does_not_acquit",
                                                    "missing_layers_do_not_acquit"),
             "verification/test_bad_suspects.py": ("a_layer_that_is_mostly_not_finite_acquits_nobody",)},
    "PG16": {"": ("every_reading_is_paid_for_as_stored_and_aligned",)},
    "PG17": {"": ("every_network_is_paid_for",)},
    "PG19": {"verification/test_planted_graph.py": (
                 "every_reading_is_counted_where_the_reference_is_empty_or_full",
                 "edges_of_the_reference_itself_say_nothing")},
    "PG20": {"embedding/test_coins.py": ("coins_are_the_published_ones",),
             "verification/test_planted_signs.py": ("hits_whose_sign_agrees_are_counted_as_the_page_says",)},
    "PG21": {"verification/test_planted_signs.py": ("hits_whose_sign_agrees_are_counted_as_the_page_says",
                                                  "p_with_signs_is_as_rare_as_it_says_whatever_the_suspect"),
             "verification/test_statistics.py": (
                 "hits_and_signs_together_are_as_rare_as_they_say_with_nothing_to_spare",
                 "counts_of_hits_and_signs_are_the_published_ones")},
    "PG22": {"verification/test_planted_signs.py": ("a_copy_whose_filters_were_turned_reads_as_the_copy_does",
                                                   "what_shares_no_edge_with_the_reference_keeps_its_sign")},
    "PG23": {"verification/test_decided_by_others.py": (
                 "what_other_marks_decide_is_left_out_as_the_page_says", "a_claim_of_one_mark_reads_as_it_did",
                 "p_is_as_rare_as_it_says_beside_positions_that_the_same_key_decides")},
    "PG18": {"": ("ownership_is_supported_down_to_the_level_itself",)},
    # start-weights.md
    "SW1": {START: ("start_weights_are_the_published_ones",
                    "any_start_is_read_and_hashed_as_the_page_says",
                    "anchors_are_as_many_as_their_share_says_and_others_in_each_layer")},
    "SW2": {START: ("other_versions_are_refused",)},
    "SW3": {START: ("shares_and_shapes_that_are_none_are_refused",
                    "other_tensors_than_those_of_the_layers_are_refused")},
    "SW4": {START: ("names_that_are_too_long_are_refused", "more_layers_than_any_network_has_are_refused")},
    "SW5": {START: ("missing_and_extra_tensors_are_refused", "other_tensors_than_those_of_the_layers_are_refused")},
    "SW6": {START: ("codes_that_do_not_fit_are_refused", "start_weights_are_the_published_ones")},
    "SW7": {START: ("sizes_that_are_none_are_refused",)},
    "SW8": {START: ("the_signs_of_votes_never_enter",)},
    "SW9": {START: ("start_weights_are_the_published_ones", "the_digest_covers_everything")},
    "SW10": {"marking/test_sign_start.py": ("which_signs_are_drawn_is_secret",)},
    "SW11": {START: ("salts_that_are_none_are_refused",)},
    # keyed-signs.md
    "KS1": {SIGNS: ("another_version_is_refused",)},
    "KS2": {SIGNS: ("committed_parameters_out_of_range_are_refused",),
            "embedding/test_keyed_signs.py": ("parameters_that_anybody_may_have_written_are_refused",)},
    "KS3": {SIGNS: ("channel_groups_that_the_commitment_does_not_bind_are_not_used",)},
    "KS4": {SIGNS: ("a_reference_that_is_a_ticket_is_refused",)},
    "KS5": {"embedding/test_keyed_signs.py": ("signs_are_the_published_ones",),
            SIGNS_PAGE: ("a_second_implementation_finds_the_published_agreements",)},
    "KS6": {SIGNS: ("nothing_that_is_read_before_the_key_looks_at_a_vote",),
            SIGNS_PAGE: ("every_reading_is_what_the_page_says",)},
    "KS7": {SIGNS: ("a_weight_that_is_zero_has_no_vote", "signs_of_anchors_are_not_counted",
                    "a_layer_without_votes_is_aligned_by_and_not_counted",
                    "the_true_key_gives_what_a_hand_computes")},
    "KS8": {"verification/test_binomial.py": ("any_tail_is_exact", "tails_of_many_coins_are_exact"),
            SIGNS: ("the_true_key_gives_what_a_hand_computes", "wrong_keys_have_p_values")},
    "KS9": {SIGNS_PAGE: ("every_reading_is_what_the_page_says", "agreements_are_the_published_ones")},
    "KS10": {SIGNS: ("a_permuted_copy_is_put_in_order_by_the_anchors",
                     "nothing_that_is_read_before_the_key_looks_at_a_vote",
                     "a_start_that_is_forged_to_look_like_the_suspect_gains_nothing")},
    "KS11": {SIGNS: ("nothing_that_is_read_before_the_key_looks_at_a_vote", "wrong_keys_have_p_values")},
    "KS12": {SIGNS: ("missing_layers_acquit_nobody", "what_an_intact_copy_could_not_show_acquits_nobody",
                     "a_network_trained_from_another_start_is_not_supported")},
    "KS13": {SIGNS: ("every_reading_is_paid_for_as_stored_and_aligned",),
             SIGNS_PAGE: ("a_verdict_is_what_the_page_computes",)},
    "KS14": {SIGNS: ("every_network_is_paid_for",)},
    "KS15": {SIGNS: ("ownership_is_supported_down_to_the_level_itself",)},
    # qr-code.md
    "QR1": {CODE: ("another_version_is_refused",)},
    "QR2": {CODE: ("committed_parameters_out_of_range_are_refused", "missing_parameters_are_refused")},
    "QR3": {CODE: ("channel_groups_that_the_commitment_does_not_bind_are_not_used",)},
    "QR4": {CODE_PAGE: ("the_text_and_its_bits_are_the_published_ones",)},
    "QR5": {CODE_PAGE: ("the_text_and_its_bits_are_the_published_ones",
                        "bits_are_those_that_another_walk_over_the_symbol_finds")},
    "QR6": {CODE: ("more_pairs_than_the_reference_has_room_for_are_refused",)},
    "QR7": {"embedding/test_pairs.py": ("any_pairs_are_distinct_empty_positions_in_every_layers_share",),
            CODE_PAGE: ("pairs_are_the_published_ones",)},
    "QR8": {CODE_PAGE: ("pairs_are_the_published_ones", "a_second_implementation_draws_the_published_pairs")},
    "QR9": {"embedding/test_pairs.py": ("edges_move_to_the_side_that_bit_and_coin_say_and_the_weakest_go",),
            CODE_PAGE: ("votes_are_the_published_ones",)},
    "QR10": {CODE_PAGE: ("votes_are_the_published_ones", "a_verdict_is_what_the_page_computes")},
    "QR11": {CODE_PAGE: ("votes_are_the_published_ones",),
             CODE: ("votes_of_a_layer_that_lost_more_weigh_less", "no_reading_or_weight_looks_at_a_coin")},
    "QR12": {"verification/test_weighted_coins.py": ("any_tail_is_exact_and_never_too_small",
                                                     "p_is_as_rare_as_it_says_over_all_outcomes"),
             CODE: ("wrong_keys_have_p_values",)},
    "QR13": {CODE: ("a_permuted_copy_is_put_in_order_and_read", "the_alignment_never_sees_a_pair")},
    "QR14": {CODE: ("missing_layers_acquit_nobody", "what_an_intact_copy_could_not_show_acquits_nobody",
                    "a_stranger_is_inconclusive_for_it_could_not_be_aligned")},
    "QR15": {CODE: ("every_reading_is_paid_for_as_stored_and_aligned",),
             CODE_PAGE: ("a_verdict_is_what_the_page_computes",)},
    "QR16": {CODE: ("every_network_is_paid_for",)},
    "QR17": {CODE: ("ownership_is_supported_down_to_the_level_itself",)},
    "QR18": {CODE: ("a_code_that_decodes_to_something_else_is_never_counted",),
             CODE_PAGE: ("no_text_changes_a_verdict",)},
    # trigger-set.md
    "TS1": {"": ("another_version_of_a_scheme_is_refused",)},
    "TS2": {"": ("committed_parameters_out_of_range_are_refused",),
            "embedding/test_trigger_set.py": ("a_hostile_claims_parameters_are_refused",
                                              "recipes_are_drawn_up_to_their_bounds_and_not_beyond")},
    "TS3": {PAGE: ("triggers_of_another_root_are_not_asked",)},
    "TS4": {"embedding/test_trigger_set.py": ("fields_are_drawn_as_written_down",
                                              "inputs_without_a_plane_are_cut_bytes")},
    "TS5": {"embedding/test_trigger_set.py": ("triggers_are_the_published_ones",)},
    "TS6": {"embedding/test_trigger_set.py": ("triggers_are_the_published_ones",)},
    "TS7": {PAGE: ("triggers_are_asked_in_their_order_one_at_a_time",),
            "embedding/test_trigger_set.py": ("inputs_are_normalised_by_channel",)},
    "TS8": {PAGE: ("triggers_are_asked_in_their_order_one_at_a_time",)},
    "TS9": {"predictors/test_answers.py": ("ties_go_to_the_lowest_class",)},
    "TS10": {PAGE: ("the_e_process_is_what_the_page_computes",)},
    "TS11": {PAGE: ("the_questioning_ends_at_the_level_and_the_largest_e_counts",)},
    "TS12": {PAGE: ("an_answer_that_is_not_a_class_is_a_miss",)},
    "TS13": {"verification/test_trigger_set.py": ("recorded_answers_are_final",
                                                "a_later_run_goes_on_and_never_asks_twice")},
    "TS14": {PAGE: ("answers_acquit_only_if_all_were_classes_and_not_all_the_same",),
             "verification/test_trigger_set.py": ("a_questioning_that_was_cut_short_never_says_not_supported",)},
    # ticket-file.md
    "TF1": {"test_tensor_file.py": ("limits_are_reached_and_not_passed",
                                    "a_file_of_any_size_costs_its_header_if_it_is_not_a_ticket")},
    "TF2": {"test_tensor_file.py": ("headers_of_another_form_are_refused",),
            "ticket/test_ticket.py": ("numbers_that_are_none_are_refused",)},
    "TF3": {"test_tensor_file.py": ("weights_of_other_types_are_refused_by_name",
                                    "weights_of_shapes_that_no_memory_holds_are_refused")},
    "TF4": {"ticket/test_ticket.py": ("an_unknown_version_is_refused",),
            TICKET_PAGE: ("the_published_files_are_read_as_the_page_says",)},
    "TF5": {"ticket/test_ticket.py": ("padding_bits_must_be_zero",),
            TICKET_PAGE: ("the_published_files_that_no_reader_accepts_are_refused",)},
    "TF6": {"ticket/test_ticket.py": ("masks_that_do_not_fit_their_list_are_refused",
                                      "a_mask_without_weights_is_refused"),
            "test_tensor_file.py": ("masks_of_shapes_that_are_none_are_refused",)},
    "TF7": {TICKET_PAGE: ("rewind_weights_that_lack_a_masked_tensor_are_refused",)},
    "TF8": {"test_tensor_file.py": ("names_that_are_taken_are_refused_in_a_file_and_in_memory",)},
    "TF9": {"ticket/test_ticket.py": ("weights_that_are_not_finite_are_refused",)},
    "TF10": {"ticket/test_ticket.py": ("metadata_of_another_kind_are_refused_by_name", "damaged_metadata_is_refused"),
             TICKET_PAGE: ("the_published_files_are_read_as_the_page_says",)},
    "TF11": {"cli/test_trust.py": ("a_tickets_model_runs_no_command", "a_tickets_data_runs_no_command",
                                   "places_and_sizes_that_a_ticket_names_need_the_users_word")},
    # verdict.md
    "VD1": {"": ("a_claim_may_ask_for_more_than_the_verifier_does_and_never_for_less",)},
    "VD2": {"": ("a_claim_by_another_key_than_the_owners_is_refused",)},
    "VD3": {PAGE: ("weights_and_answers_are_two_tests_that_are_both_paid_for",)},
    "VD4": {"": ("ownership_is_supported_down_to_the_level_itself",)},
    "VD5": {PAGE: ("not_supported_is_said_only_where_a_copy_would_have_been_seen",),
            "verification/test_verdict.py": ("not_supported_is_said_only_if_every_planned_test_says_so",
                                             "the_three_states_meet_where_they_are_said_to")},
    "VD6": {"verification/test_verdict.py": ("the_three_states_meet_where_they_are_said_to",)},
    "VD7": {PAGE: ("what_cannot_be_checked_is_an_error",)},
    "VD8": {PAGE: ("decoys_go_through_the_same_steps_and_decide_nothing",)},
    "VD9": {"verification/test_ordinary_inputs.py": ("ordinary_inputs_at_chance_are_inconclusive",)},
    "VD10": {"": ("a_mark_that_is_not_known_is_named_and_paid_for", "a_claim_of_unknown_marks_alone_is_an_error",
                     "the_level_of_a_mark_that_is_not_known_counts_like_any_other")},
}  # fmt: skip


def test_every_rule_of_the_published_pages_has_a_test_that_exists() -> None:
    pages = [path.read_text() for path in sorted((ROOT / "signatures").glob("*.md"))]
    numbers = [number for page in pages for number in re.findall(r"\[([A-Z]{2}\d+)\]", page)]
    written = [number for number in numbers if numbers.count(number) == 1]
    assert sorted(written) == sorted(numbers), "a number stands for two rules"
    assert set(written) == set(RULES)
    for number, files in RULES.items():
        for file, names in files.items():
            path = ROOT / "tests" / file if file else Path(__file__)
            defined = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert {f"test_{name}" for name in names} <= defined, number


# What a claim binds


@pytest.mark.parametrize("scheme", ["planted-graph", "trigger-set"])
def test_another_version_of_a_scheme_is_refused(scheme: str) -> None:
    made = planted_mark(version=2) if scheme == "planted-graph" else trigger_mark(version=2)
    suspect = tg.Checkpoint(dict(TICKET.weights)) if scheme == "planted-graph" else Suspect(lambda k: 0)
    with pytest.raises(UnknownVersionError, match=rf"the claim's {scheme} has version '?2'?, expected 1"):
        tg.verify(suspect, signed(made))


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (
            mark("planted-graph", {**PLANTED, "secret_ppm": 500_001}),
            "share_ppm .500001, 100000., expected",
        ),
        (mark("planted-graph", {**PLANTED, "share_ppm": 0}), "30000, 0., expected 1 to 500000"),
        (mark("planted-graph", {**PLANTED, "holes_ppm": 500_001}), "holes_ppm .30000, 100000, 500001., expected"),
        (mark("planted-graph", {**PLANTED, "density_ppm": 0}), "density_ppm .30000, 100000, 0., expected"),
        (mark("planted-graph", {**PLANTED, "turned_ppm": 0}), "turned_ppm .30000, 100000, 0., expected"),
        (mark("planted-graph", {**PLANTED, "turned_ppm": 500_001}), "turned_ppm .30000, 100000, 500001., expected"),
        (mark("planted-graph", {**PLANTED, "turned_ppm": "80000"}), "turned_ppm .30000, 100000, '80000'., expected"),
        (mark("planted-graph", {"secret_ppm": 30_000}), "secret_ppm and share_ppm .30000, None., expected"),
        (mark("planted-graph", RECIPE.to_json()), "unknown parameters .'classes', 'count'"),
        (mark("trigger-set", {**RECIPE.to_json(), "count": 100_001}), "parameters that cannot be used .no trigger set"),
        (mark("trigger-set", {**RECIPE.to_json(), "extra": 1}), "cannot be used .unknown parameters .'extra'."),
        (mark("trigger-set", {**RECIPE.to_json(), "pattern": "free"}), "cannot be used .unknown pattern"),
        (mark("trigger-set", PLANTED), "cannot be used .'pattern'"),
    ],
)
def test_committed_parameters_out_of_range_are_refused(made: Any, match: str) -> None:
    suspect = tg.Checkpoint(dict(TICKET.weights)) if made.scheme == "planted-graph" else Suspect(lambda k: 0)
    with pytest.raises(CredentialError, match=match):
        tg.verify(suspect, signed(made))


MARKED = marked_weights(planted_mark(groups=GROUPS))


@pytest.mark.parametrize(
    "part", ["secret", "reference", "parameters", "level", "version", "scheme", "key", "other mark"]
)
def test_what_the_commitment_does_not_give_is_refused(part: str) -> None:
    made = planted_mark(groups=GROUPS)
    credential = signed(made, groups=GROUPS)
    # The same forger, with everything right, is judged.
    assert evidence(MARKED, credential).status == "supported"
    vault, changed = credential.vault, made
    if part == "secret":
        vault = dataclasses.replace(vault, secret=bytes(32))
    elif part == "reference":  # one that steers the alignment, say
        steering = dataclasses.replace(TICKET, weights=MARKED, mask=Mask(layers={n: w != 0 for n, w in MARKED.items()}))
        vault = dataclasses.replace(vault, reference=steering.reference().to_bytes())
    elif part == "parameters":
        changed = dataclasses.replace(made, parameters={**made.parameters, "secret_ppm": 30_001})
    elif part == "level":
        changed = dataclasses.replace(made, level_bits=1)
    elif part == "version":
        changed = dataclasses.replace(made, version=2)
    elif part == "scheme":
        changed = dataclasses.replace(made, scheme="planted-graphs")
    elif part == "key":
        thief = tg.Owner.generate("Mallory")  # signs Eve's marks as their own
        credential = dataclasses.replace(signed(made, owner=thief), vault=vault)
    marks = [changed, dataclasses.replace(trigger_mark(), level_bits=1)] if part == "other mark" else [changed]
    forged = credential if part == "key" else dataclasses.replace(signed(*marks, groups=GROUPS), vault=vault)
    with pytest.raises(CredentialError, match=f"do not give the commitment of '{forged.claim.marks[-1].scheme}'"):
        tg.verify(tg.Checkpoint(MARKED), forged)


def test_groups_that_are_not_the_bound_ones_are_refused() -> None:
    for groups in ((), None, ((("fc1.weight", 0, 1, 0, 100), ("fc2.weight", 1, 1, 0, 100)),)):
        with pytest.raises(CredentialError, match="its channel groups are not those of 'planted-graph'"):
            tg.verify(tg.Checkpoint(MARKED), signed(planted_mark(groups=GROUPS), groups=groups))


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        (((("fc1.weight", 0, 1, 0, 201),),), "leaves 'fc1.weight' of shape"),
        (((("fc1.weight", 2, 1, 0, 5),),), "member is malformed"),
        (((("fc1.weight", 0, 1, 0, 5, 4, 5),),), "have position 4 of 'fc1.weight' twice"),
    ],
)
def test_bound_groups_that_cannot_be_used_are_refused(groups: object, match: str) -> None:
    with pytest.raises(CredentialError, match=f"the vault's channel groups are malformed .*{match}"):
        tg.verify(tg.Checkpoint(MARKED), signed(planted_mark(groups=groups), groups=groups))


def test_channel_groups_that_the_commitment_does_not_bind_are_not_used() -> None:
    """Every axis is aligned for itself, whatever groups the vault has."""
    made = planted_mark()
    wrong = ((("fc1.weight", 0, 1, 0, 30), ("fc2.weight", 1, 1, 100, 30)),)
    suspect = permuted(marked_weights(made))
    none, some, others = (evidence(suspect, signed(made, groups=groups)) for groups in (None, GROUPS, wrong))
    assert none == some == others
    assert none.details["looks"] == 10


def test_a_permuted_copy_is_aligned_to_the_reference_by_bound_groups() -> None:
    found = evidence(permuted(MARKED), signed(planted_mark(groups=GROUPS), groups=GROUPS))
    assert (found.status, found.details["aligned"], found.details["looks"]) == ("supported", True, 10)
    assert found.details["channels_out_of_place"] > 190
    straight = evidence(MARKED, signed(planted_mark(groups=GROUPS), groups=GROUPS))
    assert (found.observed, found.log10_p) == (straight.observed, straight.log10_p)


def test_notes_change_no_verdict() -> None:
    plain, noted = (signed(planted_mark(), notes=notes) for notes in ({}, {"aligned": "true", "level": "1"}))
    suspect = tg.Checkpoint(marked_weights(planted_mark()))
    assert tg.verify(suspect, plain) == tg.verify(suspect, noted)


# Looks, and what they cost


@pytest.mark.parametrize("groups", [None, GROUPS, (), ((("other.weight", 0, 1, 0, 4),),)])
@pytest.mark.parametrize(("with_signs", "looks"), [(False, 10), (True, 20)])
@pytest.mark.parametrize("is_copy", [True, False])
def test_every_reading_is_paid_for_as_stored_and_aligned(
    groups: object, with_signs: bool, looks: int, is_copy: bool
) -> None:
    """A copy that is proved as stored pays for the alignment all the same: it would have been made.

    Where edges were planted with signs, hits alone and hits with their signs are two looks, whichever is the stronger.
    """
    made = planted_mark(groups=groups, with_signs=with_signs)
    found = evidence(marked_weights(made) if is_copy else dict(TICKET.weights), signed(made, groups=groups))
    assert found.details["looks"] == looks
    assert found.log10_p == min(0.0, found.details["log10_p_uncorrected"] + math.log10(looks))
    assert found.details["attainable_log10_p"] < -30


def test_every_network_is_paid_for() -> None:
    made = planted_mark(groups=GROUPS)
    marked = marked_weights(made)
    other = unmarked_ticket(seed=5).weights
    both = {f"{net}.{name}": weights[name] for net, weights in (("a", other), ("b", marked)) for name in SHAPES}
    alone, found = (evidence(suspect, signed(made, groups=GROUPS)) for suspect in (marked, both))
    assert (found.details["looks"], found.details["networks"], found.details["network"]) == (20, 2, "b.")
    assert found.log10_p == pytest.approx(alone.log10_p + math.log10(2), abs=1e-9)
    assert found.status == "supported"


def test_ownership_is_supported_down_to_the_level_itself() -> None:
    made = planted_mark(level_bits=1)
    weights, credential = marked_weights(made), signed(made)
    reached = math.floor(-evidence(weights, credential, level_bits=1).log10_p / math.log10(2))
    assert tg.verify(tg.Checkpoint(weights), credential, level_bits=reached).status == "supported"
    assert tg.verify(tg.Checkpoint(weights), credential, level_bits=reached + 1).status == "inconclusive"


def test_a_claim_may_ask_for_more_than_the_verifier_does_and_never_for_less() -> None:
    for own, asked, needed in ((1, 64, 64), (128, 64, 128), (64, 1, 64), (100, 101, 101)):
        made = planted_mark(level_bits=own)
        found = evidence(dict(TICKET.weights), signed(made), level_bits=asked)
        assert found.threshold_log10_p == -needed * math.log10(2)
    assert evidence(dict(TICKET.weights), signed(planted_mark(level_bits=1))).threshold_log10_p == -64 * math.log10(2)


def test_a_claim_by_another_key_than_the_owners_is_refused() -> None:
    suspect, credential = tg.Checkpoint(dict(TICKET.weights)), signed(planted_mark())
    assert tg.verify(suspect, credential, owner_public_key=EVE.public_key).owner_name == "Eve"
    with pytest.raises(CredentialError, match="it is not this owner's claim"):
        tg.verify(suspect, credential, owner_public_key=tg.Owner.generate("Eve").public_key)


@pytest.mark.parametrize("newer", [mark("new-mark", {"any": 1}), trigger_mark(version=2)])
def test_a_mark_that_is_not_known_is_named_and_paid_for(newer: Any) -> None:
    made = planted_mark()
    alone = tg.verify(tg.Checkpoint(marked_weights(made)), signed(made))
    verdict = tg.verify(tg.Checkpoint(marked_weights(made)), signed(newer, made))
    assert verdict.status == "supported"
    assert verdict.tests == 2
    assert verdict.log10_p == pytest.approx(alone.log10_p + math.log10(2))
    assert verdict.evidence[0].threshold_log10_p == pytest.approx(alone.evidence[0].threshold_log10_p - math.log10(2))
    assert [item.mark for item in verdict.unchecked] == [newer.scheme]
    innocent = tg.verify(tg.Checkpoint(dict(TICKET.weights)), signed(newer, made))
    assert innocent.status == "inconclusive"


@pytest.mark.parametrize("newer", [mark("new-mark", {}, level_bits=100), trigger_mark(version=2, level_bits=100)])
def test_the_level_of_a_mark_that_is_not_known_counts_like_any_other(newer: Any) -> None:
    for marks in ((newer, planted_mark()), (planted_mark(), newer)):
        found = evidence(dict(TICKET.weights), signed(*marks))
        assert found.threshold_log10_p == pytest.approx(-100 * math.log10(2) - math.log10(2))


@pytest.mark.parametrize(
    ("suspect", "source"), [(tg.Checkpoint(dict(TICKET.weights)), "weights"), (Suspect(lambda k: 0), "answers")]
)
def test_a_claim_of_unknown_marks_alone_is_an_error(suspect: Any, source: str) -> None:
    with pytest.raises(UnverifiableError, match=f"no mark that can be read from {source}; it has new-mark, other-mark"):
        tg.verify(suspect, signed(mark("other-mark", {}), mark("new-mark", {})))


def test_each_mark_that_is_read_from_answers_has_a_journal_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journals: dict[str, Path | None] = {}

    class Noting:
        version, reads = 1, "answers"

        def examine(self, inquiry: Inquiry) -> Any:
            assert inquiry.answers is not None
            journals[inquiry.mark.scheme] = inquiry.answers.journal
            return lambda threshold_log10_p: found

    (found,) = tg.verify(tg.Checkpoint(dict(TICKET.weights)), signed(planted_mark())).evidence
    for name in ("first-mark", "second-mark"):
        monkeypatch.setitem(registry.SCHEMES, name, "not loaded")
    monkeypatch.setattr(registry, "scheme", lambda name: Noting())
    credential = signed(mark("first-mark", {}), mark("second-mark", {}))
    tg.verify(Suspect(lambda k: 0), credential, journal=tmp_path / "mine.jsonl")
    assert set(journals.values()) == {tmp_path / "mine.jsonl", tmp_path / "mine.jsonl.second-mark"}


def test_a_newer_version_is_named_where_its_marks_would_be_read() -> None:
    newer = signed(planted_mark(version=2))
    with pytest.raises(UnknownVersionError, match="planted-graph has version '?2"):
        tg.verify(tg.Checkpoint(dict(TICKET.weights)), newer)
    with pytest.raises(UnverifiableError, match="no mark that can be read from answers; it has planted-graph"):
        tg.verify(Suspect(lambda k: 0), newer)


@pytest.mark.parametrize("empty", sorted(TICKET.mask))
def test_a_reference_that_keeps_nothing_of_a_layer_is_judged(empty: str) -> None:
    layers = {name: TICKET.mask[name] & (name != empty) for name in TICKET.mask}
    ticket = dataclasses.replace(TICKET, mask=Mask(layers=layers), weights=Mask(layers=layers).applied(TICKET.weights))
    reference = ticket.reference()
    credential = signed(planted_mark(reference=reference), reference=reference)
    for weights in (ticket.weights, TICKET.rewind_weights):
        assert evidence(dict(weights), credential).status != "supported"

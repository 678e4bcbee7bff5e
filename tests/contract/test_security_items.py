"""Every security item of trust.md 2.2 that concerns the process has named tests: here is where.

Secrets at rest (X-10), pages (X-24 to X-29), the store (X-31) and the supply chain (X-33 on) are not on
this list.
"""

from __future__ import annotations

from tests.coverage import missing, names_in

GATEWAY = "contract/test_gateway_security"
UNIT = "unit/test_gateway"
FAULTS = "contract/test_gateway_faults"
BOUNDS = "doors/test_gateway_bounds"

PROOFS: dict[str, list[str]] = {
    "X-1": [
        f"{GATEWAY}::test_x1_no_name_anybody_knows_moves_a_call",
        f"{UNIT}::test_no_header_or_field_moves_a_call_elsewhere",
    ],
    "X-2": [
        f"{GATEWAY}::test_x2_a_base_url_that_could_lead_elsewhere_is_refused",
        f"{GATEWAY}::test_x2_and_others_are_taken",
        "contract/test_transport::test_a_redirect_is_never_followed",
        "unit/test_gateway_resources::test_an_upload_that_would_go_on_elsewhere_is_refused",
    ],
    "X-3": [
        f"{GATEWAY}::test_x3_what_a_call_names_is_not_fetched",
        "unit/test_gateway_resources::test_addresses_elsewhere_and_words_of_the_prompt_bind_nothing",
    ],
    "X-4": [
        f"{GATEWAY}::test_x4_a_host_changes_neither_the_path_nor_who_may",
        f"{UNIT}::test_without_callers_no_web_page_gets_in",
    ],
    "X-5": [
        "unit/test_caller_book::test_a_key_is_in_nothing_but_the_answer_that_issued_it",
        f"{UNIT}::test_every_character_of_a_caller_key_counts",
        f"{UNIT}::test_no_caller_key_is_kept_or_shown",
    ],
    "X-6": [f"{GATEWAY}::test_x6_keys_travel_in_headers_and_never_in_an_address"],
    "X-7": [
        f"{GATEWAY}::test_x7_a_sweep_finds_no_secret_anywhere",
        "unit/test_redaction::test_no_form_of_a_secret_stays",
        f"{UNIT}::test_a_refusal_that_repeats_the_key_does_not_pass_it_on",
    ],
    "X-8": [
        f"{GATEWAY}::test_x8_a_mask_shows_four_characters_at_most",
        "unit/test_redaction::test_a_mask_shows_four_characters_of_a_long_secret_and_none_of_a_short_one",
    ],
    "X-9": [f"{GATEWAY}::test_x9_whoever_observes_gets_facts_and_never_a_request"],
    "X-11": [
        f"{UNIT}::test_only_what_is_public_answers_without_a_credential",
        "contract/test_manage::test_x11_every_endpoint_asks_for_the_admin_key",
        "contract/test_manage::test_unknown_paths_tell_nothing_to_strangers",
    ],
    "X-12": [
        f"{GATEWAY}::test_x12_what_is_kept_of_the_admin_key_opens_nothing",
        "contract/test_manage::test_the_admin_key_is_read_and_checked",
    ],
    "X-13": [
        f"{GATEWAY}::test_x13_a_caller_manages_nothing_and_a_manager_calls_nothing",
        "unit/test_caller_book::test_fields_nobody_may_set_are_refused",
        "unit/test_gateway_callers::test_a_callers_priority_is_the_most_its_calls_may_have",
    ],
    "X-14": [
        f"{UNIT}::test_a_stranger_is_refused_before_the_body_is_read",
        "unit/test_gateway_callers::test_a_stranger_is_refused_before_the_body_is_read",
        "contract/test_manage::test_a_large_body_is_refused_unread",
    ],
    "X-15": [f"{GATEWAY}::test_x15_no_text_is_ever_a_statement"],
    "X-16": [f"{GATEWAY}::test_x16_nothing_a_client_sends_can_become_code"],
    "X-17": [
        "contract/test_caller_stores::test_callers_have_books_of_their_own",
        f"{UNIT}::test_no_caller_gets_anothers_answer",
        "unit/test_tickets::test_a_ticket_that_was_changed_is_none",
    ],
    "X-18": [
        f"{GATEWAY}::test_x18_headers_about_where_a_call_comes_from_are_nobodys_word",
        "unit/test_gateway_callers::test_whose_limit_it_is_no_header_decides",
        "contract/test_s2_limits_http::test_x18_ten_thousand_forged_headers_share_one_bucket",
        "contract/test_s2_limits_http::test_x18_only_a_trusted_peer_is_believed_and_only_its_last_hop",
    ],
    "X-19": [
        "property/test_recall_key::test_what_changes_the_answer_changes_the_key",
        "property/test_recall_key::test_a_raw_call_counts_byte_by_byte_and_by_its_form",
        f"{UNIT}::test_what_is_cut_withheld_or_another_question_is_not_given_again",
    ],
    "X-20": [f"{UNIT}::test_no_caller_gets_anothers_answer"],
    "X-21": [f"{GATEWAY}::test_x21_a_client_chooses_neither_room_nor_likeness_of_kept_answers"],
    "X-22": [
        f"{UNIT}::test_what_is_cut_withheld_or_another_question_is_not_given_again",
        "unit/test_replies_wire::test_no_flipped_bit_is_taken_for_an_answer",
        "doors/test_replies_on_valkey::test_a_damaged_entry_is_a_miss_and_goes",
    ],
    "X-23": [f"{UNIT}::test_every_answer_forbids_caches_between"],
    "X-30": [
        f"{GATEWAY}::test_x30_the_bounds_that_were_promised_are_the_defaults",
        f"{BOUNDS}::test_each_refusal_says_what_it_is",
        f"{BOUNDS}::test_connections_beyond_their_number_are_turned_away",
        f"{BOUNDS}::test_so_many_that_they_would_fill_memory_end_the_connection",
        "doors/test_gateway_server::test_a_slow_sender_is_cut_off",
        "unit/test_gateway_json::test_how_deep_a_body_may_be_is_a_setting",
        "unit/test_json_depth::test_no_string_however_odd_takes_long",
        f"{FAULTS}::test_f32_a_packed_body_is_refused_packed",
    ],
    "X-32": [
        f"{BOUNDS}::test_what_is_no_proper_request_is_refused_and_so_is_what_follows",
        f"{UNIT}::test_only_allowed_headers_pass_back",
        "contract/test_transport::test_a_header_that_smuggles_is_refused_before_a_connection_is_opened",
    ],
}

IDS = {f"X-{number}" for number in (*range(1, 10), *range(11, 24), 30, 32)}


def test_every_item_has_tests_and_they_exist() -> None:
    assert set(PROOFS) == IDS
    assert all(PROOFS.values())
    assert not missing(PROOFS)


def test_whoever_names_an_item_is_on_the_list() -> None:
    """A test with an id in its name proves that item: the table may not forget it."""
    listed = {proof.partition("::")[2] for proofs in PROOFS.values() for proof in proofs}
    for name in names_in(GATEWAY):
        assert name in listed, name

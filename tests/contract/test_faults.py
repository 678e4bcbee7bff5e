"""Every fault of trust.md 1.6 that a single process can meet has named tests: here is where.

Those of stores (F1 to F10), of many machines and of a full disk (F38 to F40, F42) and of what is sent
by itself (F45 to F48) are not on this list.
"""

from __future__ import annotations

from tests.coverage import missing, names_in

FAULTS = "contract/test_transport_faults"
CONNECTIONS = "contract/test_transport_connections"
ROTATION = "contract/test_s1_rotation"
GATEWAY = "contract/test_gateway_faults"
DOOR = "doors/test_gateway_server"
BOUNDS = "doors/test_gateway_bounds"
JSON = "unit/test_gateway_json"

PROOFS: dict[str, list[str]] = {
    "F11": [
        f"{FAULTS}::test_f11_a_reset_before_the_head",
        f"{GATEWAY}::test_f11_a_reset_before_the_head_is_tried_again_and_told_at_last",
        "simulation/test_against_emulator::test_each_fault_of_an_answer_becomes_its_typed_error",
    ],
    "F12": [
        f"{FAULTS}::test_f12_a_reset_in_mid_stream_after_what_came",
        f"{GATEWAY}::test_f12_a_stream_that_breaks_off_is_not_sent_again",
        "unit/test_gateway::test_a_stream_that_breaks_ends_with_an_error_that_sdks_raise",
        "contract/test_s3_monitoring::test_a_disconnect_in_a_stream_is_billed_as_estimated",
    ],
    "F13": [
        f"{FAULTS}::test_f13_one_byte_at_a_time",
        f"{DOOR}::test_recorded_calls_are_the_same_directly_and_through_the_gateway",
    ],
    "F14": [f"{FAULTS}::test_f14_silence_in_mid_stream_is_judged_by_silence_not_by_length"],
    "F15": [
        f"{CONNECTIONS}::test_f15_a_kept_connection_that_was_closed_is_not_used",
        f"{CONNECTIONS}::test_f15_even_while_the_loop_was_too_busy_to_hear_of_it",
        f"{CONNECTIONS}::test_f15_a_first_write_that_the_system_refuses_goes_out_over_another",
        f"{CONNECTIONS}::test_f15_but_what_may_have_been_heard_is_not_sent_twice",
    ],
    "F16": [
        f"{FAULTS}::test_f16_malformed_events_come_as_what_they_are",
        "simulation/test_against_emulator::test_each_fault_of_a_stream_becomes_its_typed_error",
    ],
    "F17": [
        f"{GATEWAY}::test_f17_an_error_inside_a_200_counts_against_the_model",
        "unit/test_gemini_errors::test_an_error_inside_a_200_is_the_same_error",
        "unit/test_anthropic_wire::test_an_error_in_a_stream_is_typed_and_keeps_what_was_used",
        "unit/test_anthropic_wire::test_an_error_inside_a_200_is_one",
        "unit/test_openai_wire::test_an_error_in_mid_stream_is_found_in_each_of_its_forms",
    ],
    "F18": [
        f"{GATEWAY}::test_f18_a_storm_of_refusals_never_outlasts_the_deadline",
        f"{ROTATION}::test_s1_20_an_absurd_hint_becomes_no_sleep",
        "unit/test_gemini_errors::test_a_retry_after_header_is_read_in_each_form",
        "unit/test_policy::test_a_minute_takes_the_hint_within_reason",
    ],
    "F19": [
        f"{ROTATION}::test_s1_20_a_daily_quota_with_a_short_hint_parks_until_midnight_pacific",
        f"{ROTATION}::test_s1_20_one_probe_an_hour_guards_against_another_reset",
        f"{ROTATION}::test_s1_10_the_upstreams_hint_comes_first",
        "unit/test_policy::test_a_day_lasts_until_midnight_whatever_a_short_hint_says",
    ],
    "F20": [
        f"{ROTATION}::test_s1_37_a_dead_key_is_disabled_and_only_that_key",
        "simulation/test_against_emulator::test_dead_keys_are_left_alone_after_their_first_refusal",
        "unit/test_gateway::test_an_invalid_key_of_ours_is_no_fault_of_the_callers",
    ],
    "F21": [
        f"{CONNECTIONS}::test_f21_a_name_that_is_not_resolved",
        f"{CONNECTIONS}::test_f21_a_slow_resolver_costs_the_connect_timeout",
        f"{CONNECTIONS}::test_f21_an_address_that_changed_is_found",
        f"{CONNECTIONS}::test_f21_an_address_where_nobody_answers_is_asked_for_anew",
    ],
    "F22": [
        "contract/test_transport_tls::test_f22_a_bad_certificate_is_refused_before_anything_is_sent",
        "contract/test_transport_tls::test_f22_a_handshake_that_stalls_costs_the_connect_timeout",
        "contract/test_transport_tls::test_f22_a_handshake_that_is_cut_sent_nothing",
    ],
    "F23": [
        f"{FAULTS}::test_f23_a_body_that_is_cut_is_no_body",
        f"{FAULTS}::test_f23_a_bomb_stays_packed",
        f"{FAULTS}::test_f23_a_body_without_end_is_cut",
    ],
    "F24": [
        f"{FAULTS}::test_f24_the_key_stays_where_it_was_sent",
        "contract/test_transport::test_a_redirect_is_never_followed",
    ],
    "F25": [
        f"{GATEWAY}::test_f25_usage_that_is_missing_or_cannot_be_harms_no_answer",
        f"{GATEWAY}::test_f25_of_the_other_surfaces_too",
        "contract/test_s3_monitoring::test_a_reply_that_does_not_tell_its_tokens_is_estimated",
    ],
    "F26": [
        f"{CONNECTIONS}::test_f26_a_thousand_calls_cancelled_while_they_connect_leave_no_slot_behind",
        f"{CONNECTIONS}::test_f26_cancelled_at_every_await_point_the_transport_serves_on",
    ],
    "F27": [f"{DOOR}::test_a_slow_sender_is_cut_off"],
    "F28": [
        f"{DOOR}::test_a_slow_sender_is_cut_off",
        f"{BOUNDS}::test_a_second_request_that_waits_for_its_turn_is_not_called_slow",
    ],
    "F29": [
        "unit/test_gateway::test_a_client_that_goes_away_takes_its_call_with_it",
        "unit/test_gateway::test_a_client_that_goes_away_while_its_call_waits_gives_up_its_place",
        "unit/test_gateway::test_a_client_that_goes_away_within_its_body_is_forgotten",
        f"{GATEWAY}::test_f29_a_client_that_leaves_during_a_retry_pause_or_in_line_is_forgotten",
        f"{DOOR}::test_a_client_that_goes_away_ends_the_upstreams_work",
    ],
    "F30": [
        f"{DOOR}::test_a_reader_that_does_not_read_holds_the_upstream_back_and_is_cut_off",
        f"{BOUNDS}::test_a_whole_answer_that_nobody_reads_is_dropped",
        f"{BOUNDS}::test_a_slow_reader_that_reads_is_waited_for",
        "contract/test_lean_flow::test_a_slow_reader_holds_no_more_than_a_few_reads",
    ],
    "F31": [
        f"{DOOR}::test_a_body_over_the_cap_is_refused",
        "unit/test_gateway::test_a_body_without_a_length_is_cut_at_the_cap",
    ],
    "F32": [f"{GATEWAY}::test_f32_a_packed_body_is_refused_packed"],
    "F33": [
        f"{JSON}::test_a_body_nested_without_end_is_refused_before_it_is_parsed",
        "unit/test_json_depth::test_depths",
    ],
    "F34": [
        f"{JSON}::test_json_passes_and_what_is_none_is_refused",
        f"{JSON}::test_naughty_strings_pass_byte_for_byte",
        f"{JSON}::test_naughty_headers_do_no_harm",
    ],
    "F35": [
        f"{BOUNDS}::test_what_is_no_proper_request_is_refused_and_so_is_what_follows",
        f"{BOUNDS}::test_what_is_odd_is_one_request_at_most",
        f"{BOUNDS}::test_what_follows_a_request_does_not_take_its_answer",
        f"{DOOR}::test_what_is_no_proper_request_is_refused_and_the_connection_closed",
        "contract/test_transport::test_a_header_that_smuggles_is_refused_before_a_connection_is_opened",
    ],
    "F36": [
        f"{GATEWAY}::test_f36_a_thousand_identical_calls_are_one",
        "doors/test_replies_on_valkey::test_a_thousand_identical_calls_of_two_processes_are_one",
    ],
    "F41": [
        "contract/test_gateway_metrics::test_a_late_event_loop_is_seen",
        f"{GATEWAY}::test_f41_after_a_loop_that_stood_still_nothing_is_lost",
    ],
    "F43": [
        f"{DOOR}::test_streams_go_on_while_it_drains_and_are_cut_at_the_limit",
        f"{DOOR}::test_a_second_signal_means_now",
        "unit/test_gateway::test_what_is_cut_at_the_end_is_told_so_in_the_surfaces_words",
        "doors/test_workers::test_no_call_fails_while_it_ends",
    ],
    "F44": [
        f"{GATEWAY}::test_f44_a_file_that_is_bad_half_written_or_gone_changes_nothing",
        f"{GATEWAY}::test_f44_a_secret_that_was_taken_away_changes_nothing_either",
        "contract/test_manage_config::test_f44_what_is_wrong_changes_nothing_and_says_why",
        "unit/test_workers::test_signals_are_handed_on_and_all_are_waited_for",
    ],
}

IDS = {f"F{number}" for number in range(11, 37)} | {"F41", "F43", "F44"}


def test_every_fault_has_tests_and_they_exist() -> None:
    assert set(PROOFS) == IDS
    assert all(PROOFS.values())
    assert not missing(PROOFS)


def test_whoever_names_a_fault_is_on_the_list() -> None:
    """A test with an id in its name proves that item: the table may not forget it."""
    listed = {proof.partition("::")[2] for proofs in PROOFS.values() for proof in proofs}
    for place in (FAULTS, GATEWAY, "contract/test_transport_tls"):
        for name in names_in(place):
            if name.startswith("test_f"):
                assert name in listed, name

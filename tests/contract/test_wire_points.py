"""What is most often got wrong of the providers' wire formats: each point has tests, by name.

The points are the twenty-five that open the notes on the providers' APIs, in their order. A test that
is renamed is looked up here again; a point without a test does not pass.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

POINTS = {
    "01 google-genai speaks v1; v1, v1beta and v1alpha are served alike": (
        "test_every_version_is_served_and_asked_for",
        "test_google_text_stream_count_vectors_and_models",
        "test_google_tools_schemas_and_signatures_survive_the_way",
        "test_a_cache_is_used_by_the_key_that_made_it",
    ),
    "02 both JSON casings in one body": (
        "test_camel_snake_and_mixed_spellings_mean_the_same",
        "test_both_casings_weigh_the_same",
    ),
    "03 Gemini's events: one line of JSON, two line ends, no [DONE]": (
        "test_recorded_calls_are_the_same_directly_and_through_the_gateway",
    ),
    "04 nothing of ours stands between the events of a Gemini stream": (
        "test_comments_and_what_proxies_add_pass_too",
        "test_recorded_calls_are_the_same_directly_and_through_the_gateway",
    ),
    "05 a stream can fail after 200": (
        "test_google_raises_for_every_stream_that_breaks_off",
        "test_anthropic_raises_for_a_stream_that_breaks_off",
        "test_openai_raises_for_a_stream_that_breaks_off",
    ),
    "06 a refusal of the day carries a short delay": (
        "test_s1_20_a_daily_quota_with_a_short_hint_parks_until_midnight_pacific",
        "test_a_day_lasts_until_midnight_whatever_a_short_hint_says",
    ),
    "07 quota belongs to project and model": (
        "test_keys_of_a_project_share_its_quota_and_other_projects_have_their_own",
        "test_an_alias_is_charged_to_its_target_under_the_quota_familys_name",
        "test_a_sibling_of_the_same_family_explains_it",
    ),
    "08 refusals are read by parts of the quota's id": (
        "test_each_recorded_error_has_its_kind_hint_and_family",
        "test_the_order_of_details_means_nothing",
        "test_shuffled_details_are_the_same_in_another_order",
    ),
    "09 some 429s are no rate limits": (
        "test_no_quota_at_all_waits_a_day_and_empty_credits_an_hour",
        "test_s1_36_a_bare_capacity_refusal_is_no_fault_of_the_key",
    ),
    "10 an invalid key is 400; keys are opaque": (
        "test_s1_37_a_dead_key_is_disabled_and_only_that_key",
        "test_denied_and_disabled_keys_are_told_apart",
        "test_a_page_of_something_in_between_disables_no_key",
    ),
    "11 403 and 404 that are not the key's fault": (
        "test_files_and_caches_of_others_are_403_never_404",
        "test_s1_37_a_dead_key_of_a_project_leaves_its_siblings_alone",
    ),
    "12 rotation does not cure a place, an overload or a bad argument": (
        "test_each_recorded_error_has_its_kind_hint_and_family",
        "test_s1_37_passing_faults_retry_on_the_same_key",
        "test_google_refuses_an_unknown_field_and_model_in_its_own_words",
    ),
    "13 errors echo keys": (
        "test_s1_17_an_echoed_key_reaches_no_error_log_or_metric",
        "test_s3_07j_what_an_upstream_echoes_is_cleaned",
    ),
    "14 a blocked prompt is 200": (
        "test_a_safety_stop_comes_in_three_shapes",
        "test_s1_29_a_blocked_or_empty_reply_raises",
        "test_google_sees_a_blocked_prompt_and_a_safety_stop_as_they_are",
        "test_a_blocked_reply_is_no_answer_and_has_its_usage",
    ),
    "15 the last usage of a stream counts": (
        "test_a_stream_yields_text_and_settles_its_usage",
        "test_thoughts_are_counted_once_wherever_they_stand",
    ),
    "16 cached tokens: part of the prompt, or beside it": (
        "test_a_cached_prompt_is_written_and_read",
        "test_prompt_answer_and_thoughts_count_whole_also_from_a_cache",
    ),
    "17 each text of a batch of embeddings is a request": (
        "test_every_text_of_an_embedding_batch_is_one_request",
        "test_a_batch_of_embeddings_takes_a_request_for_each_text",
    ),
    "18 the day ends at midnight in California": (
        "test_a_day_is_as_long_as_it_is_in_california",
        "test_a_day_ends_at_midnight_in_california",
    ),
    "19 an upload goes on where its first step says": (
        "test_an_upload_goes_on_at_the_gateway_with_the_key_that_began_it",
        "test_a_file_is_uploaded_used_shown_and_deleted_by_one_key",
        "test_an_upload_that_would_go_on_elsewhere_is_refused",
    ),
    "20 resources stay with their project": (
        "test_a_cache_is_used_by_the_key_that_made_it",
        "test_with_declared_quotas_it_waits_for_its_own_project_too",
    ),
    "21 signatures and unknown fields pass": (
        "test_google_tools_schemas_and_signatures_survive_the_way",
        "test_function_calls_go_back_with_their_signature_and_their_results",
    ),
    "22 what SDKs repeat is steered": (
        "test_openai_is_told_not_to_repeat_what_was_repeated",
        "test_a_limit_is_a_rate_limit_error_with_a_time",
        "test_a_budget_is_not_asked_again",
    ),
    "23 Anthropic's two credentials, and what its newest version refuses": (
        "test_anthropic_beta_and_old_credential",
        "test_anthropic_takes_no_sampling_in_its_newest_version",
        "test_a_retry_after_on_a_good_answer_cools_nothing",
        "test_the_own_spend_limit_waits_for_the_day_it_names",
    ),
    "24 OpenAI: errors in lists, vectors in base64, usage without choices": (
        "test_openai_shows_the_message_of_an_upstream_that_puts_errors_into_lists",
        "test_vectors_come_as_base64_or_as_numbers",
        "test_a_stream_asks_for_its_usage_unless_told_otherwise",
    ),
    "25 SDKs are tested over sockets; names of models are data": (
        "test_google_text_stream_count_vectors_and_models",
        "test_no_model_name_stands_in_code_but_the_documented_defaults",
    ),
}


@cache
def written() -> set[str]:
    texts = (file.read_text(encoding="utf-8") for file in TESTS.rglob("test_*.py"))
    return {
        name
        for text in texts
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)
    }


@pytest.mark.parametrize("point", POINTS)
def test_the_point_has_its_tests(point: str) -> None:
    missing = set(POINTS[point]) - written()
    assert not missing, f"point {point}: no such tests: {sorted(missing)}"


def test_every_point_is_on_the_list_once() -> None:
    assert [point[:2] for point in POINTS] == [f"{number:02d}" for number in range(1, 26)]
    assert all(POINTS.values())

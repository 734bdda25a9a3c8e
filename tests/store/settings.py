"""Settings that a user may change: those that would hurt us, and those that change no outcome of our statements."""

from __future__ import annotations

HOSTILE = {
    "client_encoding": "LATIN1",
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-14",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "search_path": "public, pg_catalog",
    "row_security": "on",
    "exit_on_error": "on",
    "statement_timeout": "1min",
    "lock_timeout": "1min",
    "idle_session_timeout": "1min",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "synchronous_commit": "off",
}
"""A value for each that we set, by which something would break; not of `transaction_timeout`, which not all have."""

PLANS = """
    constraint_exclusion cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost cursor_tuple_fraction
    debug_parallel_query effective_cache_size effective_io_concurrency enable_async_append enable_bitmapscan
    enable_distinct_reordering enable_gathermerge enable_group_by_reordering enable_hashagg enable_hashjoin
    enable_incremental_sort enable_indexonlyscan enable_indexscan enable_material enable_memoize enable_mergejoin
    enable_nestloop enable_parallel_append enable_parallel_hash enable_partition_pruning enable_partitionwise_aggregate
    enable_partitionwise_join enable_presorted_aggregate enable_self_join_elimination enable_sort enable_tidscan
    force_parallel_mode from_collapse_limit geqo geqo_effort geqo_generations geqo_pool_size geqo_seed
    geqo_selection_bias geqo_threshold hash_mem_multiplier io_combine_limit jit_above_cost jit_expressions
    jit_inline_above_cost jit_optimize_above_cost jit_tuple_deforming join_collapse_limit logical_decoding_work_mem
    maintenance_io_concurrency max_parallel_maintenance_workers max_parallel_workers max_parallel_workers_per_gather
    min_parallel_index_scan_size min_parallel_table_scan_size parallel_leader_participation parallel_setup_cost
    parallel_tuple_cost random_page_cost recursive_worktable_factor seq_page_cost work_mem temp_buffers
"""
"""The way to an answer, and how fast it is."""
STORAGE = """
    backend_flush_after commit_siblings default_statistics_target default_table_access_method default_tablespace
    default_toast_compression file_copy_method gin_fuzzy_search_limit gin_pending_list_limit maintenance_work_mem
    temp_tablespaces vacuum_buffer_usage_limit vacuum_cost_delay vacuum_cost_limit vacuum_cost_page_dirty
    vacuum_cost_page_hit vacuum_cost_page_miss vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age
    vacuum_max_eager_freeze_failure_rate vacuum_multixact_failsafe_age vacuum_multixact_freeze_min_age
    vacuum_multixact_freeze_table_age vacuum_truncate wal_skip_threshold
"""
"""Where and how rows are kept. (The migrations name the access method; a tablespace is the administrator's choice.)"""
SAID = """
    application_name client_min_messages debug_logical_replication_streaming debug_pretty_print debug_print_parse
    debug_print_plan debug_print_rewritten escape_string_warning lc_monetary lc_numeric lc_time
    log_parameter_max_length_on_error md5_password_warnings quote_all_identifiers trace_notify trace_sort
"""
"""What is logged or shown; we format no money and no dates in SQL, and take no notices."""
UNUSED = """
    backslash_quote check_function_bodies createrole_self_grant default_text_search_config icu_validation_level
    local_preload_libraries password_encryption restrict_nonsystem_relation_kind scram_iterations
    stats_fetch_consistency timezone_abbreviations transform_null_equals wal_sender_timeout xmlbinary xmloption
"""
"""Of things that we do not use: text search, XML, roles, functions of our own, `= NULL`, backslashes in literals."""
ELSEWHERE = """
    client_connection_check_interval default_transaction_deferrable synchronize_seqscans tcp_keepalives_count
    tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout transaction_deferrable transaction_isolation
    transaction_read_only
"""
"""Of the running transaction alone, of serializable ones alone, or of a peer that is gone; an order that none asked."""
DECIDED = frozenset(f"{PLANS} {STORAGE} {SAID} {UNUSED} {ELSEWHERE}".split())
"""New servers bring new ones, which a test finds: decide."""

package router

import "strings"

// effect is what calling a function may do besides returning a value.
type effect uint8

const (
	// belongsToPrimary: writes, signals, or answers about what only the primary
	// knows.
	belongsToPrimary effect = 1 << iota
	// usesState: uses or changes state of the server session.
	usesState
	// setsLocal: may change settings, for the session or the transaction.
	setsLocal
)

// function is what the built-in table knows of one name.
type function struct {
	name   string
	reason string // for Statement.Reason, if effect is not 0
	effect effect
}

// functions is a table with open addressing, at most half full.
var functions = newFunctionTable()

const functionSlots = 4096

type functionTable [functionSlots]function

// lookupFunction finds a function of pg_catalog or a well-known extension. With
// exact set, the name was quoted and its case counts.
func lookupFunction(name string, exact bool) *function {
	for slot := functionSlot(name); ; slot = (slot + 1) % functionSlots {
		switch f := &functions[slot]; {
		case f.name == "":
			return nil
		case len(f.name) != len(name):
		case exact && f.name == name, !exact && equalsLower(name, f.name):
			return f
		}
	}
}

// functionSlot hashes name without regard to the case of letters (FNV-1a).
func functionSlot(name string) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(upper[name[i]])) * 16777619
	}
	return int((h ^ h>>15) % functionSlots)
}

// equalsLower reports whether s in lower case is name. Both are equally long.
func equalsLower(s, name string) bool {
	for i := range len(s) {
		if b := s[i]; b != name[i] && (b < 'A' || b > 'Z' || b|0x20 != name[i]) {
			return false
		}
	}
	return true
}

func newFunctionTable() *functionTable {
	t := new(functionTable)
	for _, group := range functionGroups {
		for name := range strings.FieldsSeq(group.names) {
			t.add(function{name: name, reason: "function " + name, effect: group.effect})
		}
	}
	return t
}

func (t *functionTable) add(f function) {
	slot := functionSlot(f.name)
	for t[slot].name != "" {
		slot = (slot + 1) % functionSlots
	}
	t[slot] = f
}

// functionGroups lists PostgreSQL's functions, 13 to 18, and those of common
// extensions. Functions which only serve types, operators and indexes are left
// to the catalog, and so is every extension's name that somebody else's function
// may well have, such as slice.
var functionGroups = []struct {
	effect effect
	names  string
}{
	{0, generalFunctions},
	{0, collectionFunctions},
	{0, geometricFunctions},
	{0, catalogFunctions},
	{0, harmlessVolatileFunctions},
	{0, extensionFunctions},
	{0, postgisFunctions},
	{belongsToPrimary, primaryFunctions},
	{usesState, stateFunctions},
	{usesState | setsLocal, "set_config"},
}

// Numbers, text, time, aggregates, windows, types by their name.
const generalFunctions = `
abbrev abs acos acosd acosh age any_value array_agg ascii asin asind asinh atan atan2 atan2d atand atanh avg
bernoulli bit bit_and bit_count bit_length bit_or bit_xor bool bool_and bool_or bpchar broadcast btrim bytea
casefold cash_words cbrt ceil ceiling char char_length character_length chr cidr concat concat_ws convert
convert_from convert_to corr cos cosd cosh cot cotd count covar_pop covar_samp crc32 crc32c cume_dist
current_database current_role current_schema current_schemas current_setting current_user date date_add date_bin
date_part date_subtract date_trunc decode degrees dense_rank div encode enum_first enum_last enum_range
erf erfc every exp extract factorial family first_value float4 float8 floor format gamma gcd generate_series
generate_subscripts get_bit get_byte getdatabaseencoding hashtext hashtextextended host hostmask icu_unicode_version
inet inet_client_addr inet_client_port inet_merge inet_same_family inet_server_addr inet_server_port initcap int2
int4 int8 interval is_normalized isfinite justify_days justify_hours justify_interval lag last_value lcm lead left
length lgamma like like_escape ln log log10 lower lpad ltrim macaddr macaddr8 macaddr8_set7bit make_date
make_interval make_time make_timestamp make_timestamptz masklen max md5 min min_scale mod mode money name netmask
network normalize notlike now nth_value ntile num_nonnulls num_nulls numeric octet_length oid overlaps overlay
parse_ident percent_rank percentile_cont percentile_disc pg_lsn pi position pow power quote_ident quote_literal
quote_nullable radians rank regclass regexp_count regexp_instr regexp_like regexp_match regexp_matches
regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr regproc regprocedure regr_avgx regr_avgy
regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy regtype repeat replace reverse right
round row_number rpad rtrim scale session_user set_bit set_byte set_masklen sha224 sha256 sha384 sha512 sign
similar_escape similar_to_escape sin sind sinh split_part sqrt starts_with statement_timestamp stddev stddev_pop
stddev_samp string_agg strpos substr substring sum system tan tand tanh text textcat textlen time timestamp
timestamptz timetz timezone to_ascii to_bin to_char to_date to_hex to_number to_oct to_timestamp
transaction_timestamp translate trim_scale trunc unicode_assigned unicode_version unistr upper uuid
uuid_extract_timestamp uuid_extract_version var_pop var_samp varbit varchar variance version width_bucket xid xid8`

// Arrays, ranges, JSON, XML, text search.
const collectionFunctions = `
array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
array_prepend array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_json
array_to_string array_to_tsvector array_upper arraycontained arraycontains arrayoverlap cardinality
database_to_xml database_to_xml_and_xmlschema database_to_xmlschema datemultirange daterange get_current_ts_config
int4multirange int4range int8multirange int8range isempty json json_agg json_agg_strict json_array json_arrayagg
json_array_elements json_array_elements_text json_array_length json_build_array json_build_object json_each
json_each_text json_exists json_extract_path json_extract_path_text json_object json_object_agg
json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict json_object_keys json_objectagg
json_populate_record json_populate_recordset json_query json_scalar json_serialize json_strip_nulls json_table
json_to_record json_to_recordset json_to_tsvector json_typeof json_value jsonb jsonb_agg jsonb_agg_strict
jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_concat
jsonb_contained jsonb_contains jsonb_delete jsonb_delete_path jsonb_each jsonb_each_text jsonb_exists
jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object
jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict jsonb_object_keys
jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array
jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz
jsonb_populate_record jsonb_populate_record_valid jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax
jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_to_tsvector jsonb_typeof lower_inc lower_inf multirange
numnode nummultirange numrange phraseto_tsquery plainto_tsquery querytree range_agg range_intersect_agg
range_merge row_to_json schema_to_xml schema_to_xml_and_xmlschema schema_to_xmlschema setweight string_to_array
string_to_table strip table_to_xml table_to_xml_and_xmlschema table_to_xmlschema to_json to_jsonb to_tsquery
to_tsvector trim_array ts_debug ts_delete ts_filter ts_headline ts_lexize ts_parse ts_rank ts_rank_cd
ts_token_type tsmultirange tsquery tsquery_phrase tsrange tstzmultirange tstzrange tsvector tsvector_to_array
unnest upper_inc upper_inf websearch_to_tsquery xml xml_is_well_formed xml_is_well_formed_content
xml_is_well_formed_document xmlagg xmlcomment xmlexists xmltext xmlvalidate xpath xpath_exists`

const geometricFunctions = `
area bound_box box center circle diagonal diameter height isclosed ishorizontal isopen isparallel isperp
isvertical line lseg npoints path pclose point polygon popen radius slope width`

// What the catalogs and the server's parameters say: nothing here depends on
// the session that asks, and what depends on the node is wanted from that node.
const catalogFunctions = `
acldefault aclexplode aclitem col_description format_type has_any_column_privilege has_column_privilege
has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
has_largeobject_privilege has_parameter_privilege has_schema_privilege has_sequence_privilege has_server_privilege
has_table_privilege has_tablespace_privilege has_type_privilege makeaclitem mxid_age obj_description
oidvectortypes pg_available_extension_versions pg_available_extensions pg_backend_pid pg_basetype
pg_char_to_encoding pg_client_encoding pg_collation_for pg_collation_is_visible pg_column_compression
pg_column_is_updatable pg_column_size pg_column_toast_chunk_id pg_conf_load_time pg_config
pg_conversion_is_visible pg_current_snapshot pg_cursor pg_describe_object pg_encoding_max_length
pg_encoding_to_char pg_extension_update_paths pg_filenode_relation pg_function_is_visible pg_get_acl
pg_get_catalog_foreign_keys pg_get_constraintdef pg_get_expr pg_get_function_arg_default
pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody
pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_object_address pg_get_partition_constraintdef
pg_get_partkeydef pg_get_publication_tables pg_get_replica_identity_index pg_get_ruledef pg_get_serial_sequence
pg_get_statisticsobjdef pg_get_statisticsobjdef_columns pg_get_statisticsobjdef_expressions pg_get_triggerdef
pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object pg_identify_object_as_address
pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_indexam_progress_phasename
pg_input_error_info pg_input_is_valid pg_is_other_temp_schema pg_listening_channels pg_mcv_list_items
pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible pg_options_to_table
pg_partition_ancestors pg_partition_root pg_partition_tree pg_postmaster_start_time pg_prepared_statement
pg_relation_filenode pg_relation_filepath pg_relation_is_publishable pg_relation_is_updatable
pg_sequence_parameters pg_settings_get_flags pg_show_all_settings pg_size_bytes pg_size_pretty pg_snapshot_xip
pg_snapshot_xmax pg_snapshot_xmin pg_split_walfile_name pg_stat_get_activity pg_stat_get_wal_receiver
pg_statistics_obj_is_visible pg_table_is_visible pg_tablespace_databases pg_tablespace_location
pg_timezone_abbrevs pg_timezone_names pg_trigger_depth pg_ts_config_is_visible pg_ts_dict_is_visible
pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof pg_visible_in_snapshot
pg_wal_lsn_diff row_security_active satisfies_hash_partition shobj_description to_regclass to_regcollation
to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype to_regtypemod
txid_current_snapshot txid_snapshot_xip txid_snapshot_xmax txid_snapshot_xmin txid_visible_in_snapshot`

// The catalog calls these VOLATILE, yet a standby may answer.
const harmlessVolatileFunctions = `
clock_timestamp current_query gen_random_uuid lo_get pg_blocking_pids pg_collation_actual_version
pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system pg_database_collation_actual_version
pg_database_size pg_get_wal_replay_pause_state pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused
pg_jit_available pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status
pg_relation_size pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until
pg_table_size pg_tablespace_size pg_total_relation_size random random_normal timeofday uuidv4 uuidv7`

// uuid-ossp, pgcrypto, pg_trgm, fuzzystrmatch, unaccent, hstore, ltree, intarray,
// earthdistance, pgvector, timescaledb.
const extensionFunctions = `
akeys armor avals binary_quantize cosine_distance crypt daitch_mokotoff dearmor decrypt decrypt_iv difference
digest dmetaphone dmetaphone_alt earth_box earth_distance encrypt encrypt_iv gen_random_bytes gen_salt
hamming_distance hmac hstore hstore_to_array hstore_to_json hstore_to_json_loose hstore_to_jsonb
hstore_to_jsonb_loose hstore_to_matrix icount inner_product intset jaccard_distance l1_distance l2_distance
l2_norm l2_normalize levenshtein levenshtein_less_equal ll_to_earth ltree2text metaphone nlevel
pgp_key_id pgp_pub_decrypt pgp_pub_decrypt_bytea pgp_pub_encrypt pgp_pub_encrypt_bytea pgp_sym_decrypt
pgp_sym_decrypt_bytea pgp_sym_encrypt pgp_sym_encrypt_bytea show_limit show_trgm similarity skeys soundex
strict_word_similarity subltree subpath svals system_rows system_time text2ltree time_bucket
time_bucket_gapfill unaccent uuid_generate_v1 uuid_generate_v1mc uuid_generate_v3 uuid_generate_v4
uuid_generate_v5 uuid_nil uuid_ns_dns uuid_ns_oid uuid_ns_url uuid_ns_x500 vector_dims vector_norm
word_similarity`

const postgisFunctions = `
geography geometry geometrytype postgis_full_version postgis_lib_version postgis_version st_3ddistance
st_3dlength st_area st_asbinary st_asewkb st_asewkt st_asgeojson st_ashexewkb st_askml st_asmvt st_asmvtgeom
st_astext st_aswkb st_azimuth st_boundary st_boundingdiagonal st_buffer st_buildarea st_centroid
st_closestpoint st_clusterdbscan st_clusterkmeans st_collect st_collectionextract st_contains
st_containsproperly st_convexhull st_coorddim st_coveredby st_covers st_crosses st_difference st_dimension
st_disjoint st_distance st_distancesphere st_distancespheroid st_dump st_dumppoints st_dumprings st_dwithin
st_endpoint st_envelope st_equals st_expand st_extent st_exteriorring st_flipcoordinates st_force2d
st_force3d st_geogfromtext st_geohash st_geometryfromtext st_geometryn st_geometrytype st_geomfromewkb
st_geomfromewkt st_geomfromgeojson st_geomfromtext st_geomfromwkb st_interiorringn st_intersection
st_intersects st_isclosed st_isempty st_isring st_issimple st_isvalid st_isvalidreason st_length
st_lineinterpolatepoint st_linelocatepoint st_linemerge st_linesubstring st_m st_makebox2d st_makeenvelope
st_makeline st_makepoint st_makepolygon st_makevalid st_maxdistance st_memunion st_multi st_ndims st_npoints
st_numgeometries st_numpoints st_orderingequals st_overlaps st_perimeter st_point st_pointfromtext st_pointn
st_pointonsurface st_polygon st_project st_reduceprecision st_relate st_reverse st_rotate st_scale st_segmentize
st_setsrid st_simplify st_simplifypreservetopology st_snap st_snaptogrid st_split st_srid st_startpoint
st_subdivide st_symdifference st_tileenvelope st_touches st_transform st_translate st_unaryunion st_union
st_within st_x st_xmax st_xmin st_y st_ymax st_ymin st_z`

// What writes, what acts on the server, what a standby refuses, what asks about
// the primary's own files, log or transactions, and what runs SQL that arrives as
// text. A standby executes many of these without a word.
const primaryFunctions = `
bt_index_check bt_index_parent_check brin_desummarize_range brin_summarize_new_values
brin_summarize_range crosstab crosstab2 crosstab3 crosstab4 crosstabn connectby currtid2
gin_clean_pending_list lo_creat lo_create lo_export lo_from_bytea lo_import lo_put lo_unlink nextval
pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_available_wal_summaries pg_backup_start_time
pg_cancel_backend pg_clear_attribute_stats pg_clear_relation_stats pg_copy_logical_replication_slot
pg_copy_physical_replication_slot pg_create_logical_replication_slot pg_create_physical_replication_slot
pg_create_restore_point pg_current_logfile pg_current_wal_flush_lsn pg_current_wal_insert_lsn
pg_current_wal_lsn pg_current_xact_id pg_current_xact_id_if_assigned pg_drop_replication_slot
pg_extension_config_dump pg_file_rename pg_file_sync pg_file_unlink pg_file_write
pg_get_backend_memory_contexts pg_get_multixact_members pg_get_replication_slots pg_get_sequence_data
pg_get_shmem_allocations pg_get_wal_resource_managers pg_get_wal_summarizer_state pg_hba_file_rules
pg_ident_file_mappings pg_import_system_collations pg_is_in_backup pg_isolation_test_session_is_blocked
pg_last_committed_xact pg_log_backend_memory_contexts pg_log_standby_snapshot pg_logdir_ls
pg_logical_emit_message pg_logical_slot_get_binary_changes pg_logical_slot_get_changes
pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes pg_ls_archive_statusdir pg_ls_dir
pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_summariesdir pg_ls_tmpdir
pg_ls_waldir pg_nextoid pg_notification_queue_usage pg_notify pg_prepared_xact pg_prewarm pg_promote
pg_read_binary_file pg_read_file pg_read_file_old pg_reload_conf pg_replication_origin_advance
pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_oid
pg_replication_origin_progress pg_replication_slot_advance pg_restore_attribute_stats
pg_restore_relation_stats pg_rotate_logfile pg_rotate_logfile_old pg_show_all_file_settings
pg_show_replication_origin_status pg_signal_backend pg_stat_clear_snapshot pg_stat_file
pg_stat_force_next_flush pg_stat_get_wal_senders pg_stat_have_stats pg_stat_reset
pg_stat_reset_backend_stats pg_stat_reset_replication_slot pg_stat_reset_shared
pg_stat_reset_single_function_counters pg_stat_reset_single_table_counters pg_stat_reset_slru
pg_stat_reset_subscription_stats pg_stat_statements_reset pg_stop_making_pinned_objects pg_switch_wal
pg_sync_replication_slots pg_terminate_backend pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
pg_wal_replay_pause pg_wal_replay_resume pg_wal_summary_contents pg_walfile_name pg_walfile_name_offset
pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status query_to_xml
query_to_xml_and_xmlschema query_to_xmlschema setval ts_rewrite ts_stat txid_current
txid_current_if_assigned txid_status verify_heapam xpath_table`

// A standby grants advisory locks too, where nobody else sees them. What dblink
// opens belongs to the server session, and so does a backup.
const stateFunctions = `
currval cursor_to_xml cursor_to_xmlschema dblink dblink_build_sql_delete dblink_build_sql_insert
dblink_build_sql_update dblink_cancel_query dblink_close dblink_connect dblink_connect_u dblink_current_query
dblink_disconnect dblink_error_message dblink_exec dblink_fetch dblink_get_connections dblink_get_notify
dblink_get_result dblink_is_busy dblink_open dblink_send_query lastval lo_close lo_lseek lo_lseek64 lo_open
lo_tell lo_tell64 lo_truncate lo_truncate64 loread lowrite pg_advisory_lock pg_advisory_lock_shared
pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared pg_backup_start pg_backup_stop
pg_export_snapshot pg_replication_origin_session_is_setup pg_replication_origin_session_progress
pg_replication_origin_session_reset pg_replication_origin_session_setup pg_replication_origin_xact_reset
pg_replication_origin_xact_setup pg_start_backup pg_stop_backup pg_try_advisory_lock
pg_try_advisory_lock_shared set_limit setseed`

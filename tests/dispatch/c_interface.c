// Test of the C interface, compiled as C99. The oracle is the formula of RoFormer in double precision.
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ropewalk/ropewalk.h>

enum { TOKENS = 7, HEADS = 4, KV_HEADS = 2, DIM = 64, PAIRS = DIM / 2 };
enum { Q_SIZE = TOKENS * HEADS * DIM, K_SIZE = TOKENS * KV_HEADS * DIM };

static int failures = 0;

#define CHECK(condition)                                                                                             \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s; last error: '%s'\n", __FILE__, __LINE__, #condition, ropewalk_last_error()); \
            ++failures;                                                                                              \
        }                                                                                                            \
    } while (0)

/// Checks a result and a part of the message.
#define CHECK_FAILS(call, result, text)                       \
    do {                                                      \
        CHECK((call) == (result));                            \
        CHECK(strstr(ropewalk_last_error(), (text)) != NULL); \
    } while (0)
#define CHECK_INVALID(call, text) CHECK_FAILS(call, ROPEWALK_INVALID_ARGUMENT, text)

static const double base = 10000.0;

static double frequency(int pair) { return pow(base, -2.0 * pair / (double)DIM); }

static float number(int index) { return (float)((index * 37 + 11) % 101) / 50.0F - 1.0F; }

static void fill(float* values, int count) {
    for (int i = 0; i < count; ++i) values[i] = number(i);
}

/// Largest difference between a rotated tensor of number() and the exact rotation at positions [TOKENS], divided by the
/// norm of the pair.
static double largest_error(const float* rotated, int heads, const int64_t* positions, double factor, int layout) {
    double largest = 0;
    for (int row = 0; row < TOKENS * heads; ++row) {
        for (int pair = 0; pair < PAIRS; ++pair) {
            const int first = row * DIM + (layout == ROPEWALK_HALF_SPLIT ? pair : 2 * pair);
            const int second = layout == ROPEWALK_HALF_SPLIT ? first + PAIRS : first + 1;
            const double angle = (double)positions[row / heads] * frequency(pair) / factor;
            const double x = number(first), y = number(second);
            const double dx = rotated[first] - (x * cos(angle) - y * sin(angle));
            const double dy = rotated[second] - (y * cos(angle) + x * sin(angle));
            largest = fmax(largest, hypot(dx, dy) / fmax(hypot(x, y), 1e-3));
        }
    }
    return largest;
}

static ropewalk_geometry geometry_of(int layout) {
    ropewalk_geometry geometry = {.struct_size = sizeof geometry, .head_dim = DIM, .layout = layout};
    return geometry;
}

static ropewalk_encoding* make(const char* expression, int layout) {
    const ropewalk_geometry geometry = geometry_of(layout);
    ropewalk_encoding* encoding = NULL;
    CHECK(ropewalk_encoding_create(&geometry, expression, &encoding) == ROPEWALK_OK);
    if (encoding == NULL) exit(1);
    return encoding;
}

static void test_version_and_instruction_sets(void) {
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", ROPEWALK_VERSION_MAJOR, ROPEWALK_VERSION_MINOR,
             ROPEWALK_VERSION_PATCH);
    CHECK(strcmp(ropewalk_version(), version) == 0);
    CHECK(strcmp(ropewalk_last_error(), "") == 0);

    const char* const in_use = ropewalk_instruction_set();
    CHECK(in_use != NULL);
    int found = 0, count = 0;
    for (const char* name; (name = ropewalk_available_instruction_set(count)) != NULL; ++count)
        found += strcmp(name, in_use) == 0;
    CHECK(count >= 1 && found == 1);
    CHECK(ropewalk_available_instruction_set(-1) == NULL);
    CHECK(ropewalk_tuning_profile() != NULL && ropewalk_tuning_profile()[0] != '\0');
}

static void test_encoding(void) {
    ropewalk_encoding* const encoding = make("linear:8", ROPEWALK_INTERLEAVED);
    CHECK(ropewalk_encoding_pairs(encoding) == PAIRS);
    CHECK(ropewalk_encoding_head_dim(encoding) == DIM);
    CHECK(ropewalk_encoding_layout(encoding) == ROPEWALK_INTERLEAVED);
    CHECK(ropewalk_encoding_attention_factor(encoding) == 1);
    CHECK(ropewalk_encoding_softmax_factor(encoding) == 1);
    CHECK(strcmp(ropewalk_encoding_expression(encoding), "linear:8") == 0);
    double inv_freq[PAIRS];
    CHECK(ropewalk_encoding_inv_freq(encoding, inv_freq, PAIRS) == ROPEWALK_OK);
    for (int pair = 0; pair < PAIRS; ++pair) CHECK(fabs(inv_freq[pair] * 8 / frequency(pair) - 1) < 1e-14);
    CHECK_INVALID(ropewalk_encoding_inv_freq(encoding, inv_freq, PAIRS - 1), "inv_freq has 31 elements");
    CHECK_INVALID(ropewalk_encoding_inv_freq(encoding, NULL, PAIRS), "inv_freq is NULL");
    ropewalk_encoding_destroy(encoding);
    ropewalk_encoding_destroy(NULL);

    ropewalk_geometry geometry = geometry_of(ROPEWALK_HALF_SPLIT);
    geometry.base = 500000;
    geometry.original_length = 4096;
    ropewalk_encoding* yarn = NULL;
    CHECK(ropewalk_encoding_create(&geometry, "yarn:4", &yarn) == ROPEWALK_OK);
    CHECK(fabs(ropewalk_encoding_attention_factor(yarn) - (0.1 * log(4) + 1)) < 1e-12);
    ropewalk_encoding_destroy(yarn);
}

static void test_config(void) {
    const char* const config =
        "{\"model_type\": \"llama\", \"head_dim\": 64, \"rope_theta\": 10000.0,"
        " \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2.0}}";
    ropewalk_config_choices choices = {.struct_size = sizeof choices, .policy = "linear:4"};
    ropewalk_encoding* encoding = NULL;
#if defined(TEST_JSON)
    CHECK(ropewalk_encoding_from_config(config, NULL, &encoding) == ROPEWALK_OK);
    CHECK(strcmp(ropewalk_encoding_expression(encoding), "linear:2") == 0);
    CHECK(ropewalk_encoding_layout(encoding) == ROPEWALK_HALF_SPLIT);
    ropewalk_encoding_destroy(encoding);
    choices.layout = ROPEWALK_INTERLEAVED;
    CHECK(ropewalk_encoding_from_config(config, &choices, &encoding) == ROPEWALK_OK);
    CHECK(strcmp(ropewalk_encoding_expression(encoding), "linear:4") == 0);
    CHECK(ropewalk_encoding_layout(encoding) == ROPEWALK_INTERLEAVED);
    ropewalk_encoding_destroy(encoding);
    choices.layer_type = "abacus_attention";
    CHECK_INVALID(ropewalk_encoding_from_config(config, &choices, &encoding), "'abacus_attention'");
    CHECK(encoding == NULL);
    CHECK_INVALID(ropewalk_encoding_from_config("{", NULL, &encoding), "not valid JSON");
    choices.policy = "";
    CHECK_INVALID(ropewalk_encoding_from_config(config, &choices, &encoding), "choices.policy is empty");
    choices.layout = 3;
    CHECK_INVALID(ropewalk_encoding_from_config(config, &choices, &encoding), "choices.layout must be");
#else
    CHECK_FAILS(ropewalk_encoding_from_config(config, &choices, &encoding), ROPEWALK_UNSUPPORTED, "ROPEWALK_JSON=OFF");
#endif
    CHECK_INVALID(ropewalk_encoding_from_config(NULL, NULL, &encoding), "config_json is NULL");
    CHECK_INVALID(ropewalk_encoding_from_config(config, NULL, NULL), "encoding is NULL");
}

static void test_rotations(int layout) {
    ropewalk_encoding* const encoding = make("linear:2", layout);
    static float q[Q_SIZE], k[K_SIZE], q_out[Q_SIZE], k_out[K_SIZE];
    const ropewalk_view q_view = ropewalk_thd(q, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_view k_view = ropewalk_thd(k, ROPEWALK_F32, TOKENS, KV_HEADS, DIM);
    const ropewalk_view q_out_view = ropewalk_thd(q_out, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_view k_out_view = ropewalk_thd(k_out, ROPEWALK_F32, TOKENS, KV_HEADS, DIM);
    const double bound = 3e-7;

    // In place from an offset.
    fill(q, Q_SIZE), fill(k, K_SIZE);
    int64_t running[TOKENS];
    for (int i = 0; i < TOKENS; ++i) running[i] = 1000003 + i;
    ropewalk_positions positions = ropewalk_offset(running[0]);
    CHECK(ropewalk_rotate(&q_view, &k_view, encoding, &positions, NULL) == ROPEWALK_OK);
    CHECK(largest_error(q, HEADS, running, 2, layout) < bound);
    CHECK(largest_error(k, KV_HEADS, running, 2, layout) < bound);

    // The inverse restores the input, on one thread.
    const ropewalk_options inverse = {.struct_size = sizeof inverse, .direction = ROPEWALK_INVERSE, .threads = 1};
    CHECK(ropewalk_rotate(&q_view, &k_view, encoding, &positions, &inverse) == ROPEWALK_OK);
    for (int i = 0; i < Q_SIZE; ++i) CHECK(fabsf(q[i] - number(i)) < 1e-6F);

    // Out of place, with ids of both types. The inputs stay as they are.
    fill(q, Q_SIZE), fill(k, K_SIZE);
    const int64_t ids[TOKENS] = {5, 0, 70000, -3, 12, 12, 1};
    int32_t narrow[TOKENS];
    for (int i = 0; i < TOKENS; ++i) narrow[i] = (int32_t)ids[i];
    positions = ropewalk_ids64(ids, TOKENS);
    CHECK(ropewalk_rotate_to(&q_view, &k_view, &q_out_view, &k_out_view, encoding, &positions, NULL) == ROPEWALK_OK);
    CHECK(largest_error(q_out, HEADS, ids, 2, layout) < bound);
    CHECK(largest_error(k_out, KV_HEADS, ids, 2, layout) < bound);
    for (int i = 0; i < Q_SIZE; ++i) CHECK(q[i] == number(i));
    positions = ropewalk_ids32(narrow, TOKENS);
    CHECK(ropewalk_rotate(NULL, &k_view, encoding, &positions, NULL) == ROPEWALK_OK);
    CHECK(memcmp(k, k_out, sizeof k) == 0);

    // A ragged batch counts from 0 in each sequence.
    const int64_t counted[TOKENS] = {0, 1, 2, 0, 0, 1, 2};
    const int32_t bounds32[4] = {0, 3, 4, TOKENS};
    const int64_t bounds64[4] = {0, 3, 4, TOKENS};
    positions = ropewalk_cu_seqlens32(bounds32, 4);
    CHECK(ropewalk_rotate(&q_view, NULL, encoding, &positions, NULL) == ROPEWALK_OK);
    CHECK(largest_error(q, HEADS, counted, 2, layout) < bound);
    positions = ropewalk_cu_seqlens64(bounds64, 4);
    // The same sequences, each after a cache of its own length.
    const int32_t cached[3] = {700, 0, -12};
    int64_t continued[TOKENS];
    for (int i = 0; i < TOKENS; ++i) continued[i] = counted[i] + cached[i < 3 ? 0 : i < 4 ? 1 : 2];
    ropewalk_positions chunks = positions;
    chunks.offsets = cached, chunks.offset_count = 3, chunks.offset_bits = 32;
    fill(k, K_SIZE);
    CHECK(ropewalk_rotate(NULL, &k_view, encoding, &chunks, NULL) == ROPEWALK_OK);
    CHECK(largest_error(k, KV_HEADS, continued, 2, layout) < bound);
    chunks.offset_bits = 16;
    CHECK_INVALID(ropewalk_rotate(NULL, &k_view, encoding, &chunks, NULL), "offset_bits must be 32 or 64, got 16");
    chunks.offset_bits = 32, chunks.offset_count = 2;
    CHECK_INVALID(ropewalk_rotate(NULL, &k_view, encoding, &chunks, NULL), "2 offsets are given for 3 sequences");
    chunks.kind = ROPEWALK_ROW_OFFSETS, chunks.first = 0, chunks.offset_count = 1, chunks.offsets = NULL;
    CHECK_INVALID(ropewalk_rotate(NULL, &k_view, encoding, &chunks, NULL), "offsets is NULL");
    fill(k, K_SIZE);
    CHECK(ropewalk_rotate(NULL, &k_view, encoding, &positions, NULL) == ROPEWALK_OK);
    CHECK(largest_error(k, KV_HEADS, counted, 2, layout) < bound);

    // A shift moves all tokens by one distance, and back.
    const ropewalk_positions forth = ropewalk_shift(2000), back = ropewalk_shift(-2000);
    int64_t shifted[TOKENS];
    for (int i = 0; i < TOKENS; ++i) shifted[i] = counted[i] + 2000;
    CHECK(ropewalk_rotate(NULL, &k_view, encoding, &forth, NULL) == ROPEWALK_OK);
    CHECK(largest_error(k, KV_HEADS, shifted, 2, layout) < 2 * bound);
    CHECK(ropewalk_rotate(NULL, &k_view, encoding, &back, NULL) == ROPEWALK_OK);

    // A re-rotation of these keys, in place and to another tensor.
    const ropewalk_options one_thread = {.struct_size = sizeof one_thread, .threads = 1};
    ropewalk_encoding* const other = make("linear:5", layout);
    const ropewalk_positions moved = ropewalk_ids64(ids, TOKENS);
    CHECK(ropewalk_rerotate(&k_view, &k_out_view, encoding, &positions, other, &moved, NULL) == ROPEWALK_OK);
    CHECK(largest_error(k_out, KV_HEADS, ids, 5, layout) < 4 * bound);
    CHECK(ropewalk_rerotate(&k_view, NULL, encoding, &positions, other, &moved, &one_thread) == ROPEWALK_OK);
    CHECK(memcmp(k, k_out, sizeof k) == 0);
    ropewalk_encoding_destroy(other);
    ropewalk_encoding_destroy(encoding);
}

static void test_orders(void) {
    ropewalk_encoding* const encoding = make("default", ROPEWALK_HALF_SPLIT);
    // Two batch rows with ids of their own, heads outside of tokens: [batch, heads, tokens, head_dim].
    static float heads_major[2 * Q_SIZE], tokens_major[2 * Q_SIZE];
    fill(heads_major, 2 * Q_SIZE);
    for (int b = 0; b < 2; ++b)
        for (int h = 0; h < HEADS; ++h)
            for (int t = 0; t < TOKENS; ++t)
                memcpy(tokens_major + ((b * TOKENS + t) * HEADS + h) * DIM,
                       heads_major + ((b * HEADS + h) * TOKENS + t) * DIM, DIM * sizeof(float));
    int64_t ids[2 * TOKENS];
    for (int i = 0; i < 2 * TOKENS; ++i) ids[i] = i * i;
    ropewalk_positions positions = ropewalk_ids64(ids, TOKENS);
    positions.rows = 2;
    const ropewalk_view q = ropewalk_bhsd(heads_major, ROPEWALK_F32, 2, HEADS, TOKENS, DIM);
    CHECK(ropewalk_rotate(&q, NULL, encoding, &positions, NULL) == ROPEWALK_OK);
    for (int b = 0; b < 2; ++b) {
        const ropewalk_view row = ropewalk_thd(tokens_major + b * Q_SIZE, ROPEWALK_F32, TOKENS, HEADS, DIM);
        const ropewalk_positions of_row = ropewalk_ids64(ids + b * TOKENS, TOKENS);
        CHECK(ropewalk_rotate(&row, NULL, encoding, &of_row, NULL) == ROPEWALK_OK);
    }
    for (int b = 0; b < 2; ++b)
        for (int h = 0; h < HEADS; ++h)
            for (int t = 0; t < TOKENS; ++t)
                CHECK(memcmp(tokens_major + ((b * TOKENS + t) * HEADS + h) * DIM,
                             heads_major + ((b * HEADS + h) * TOKENS + t) * DIM, DIM * sizeof(float)) == 0);
    ropewalk_encoding_destroy(encoding);
}

static void test_tables(void) {
    ropewalk_encoding* const encoding = make("default", ROPEWALK_HALF_SPLIT);
    static float cosines[50 * PAIRS], sines[50 * PAIRS], q[Q_SIZE], by_table[Q_SIZE];
    const ropewalk_positions start = ropewalk_offset(0);
    CHECK(ropewalk_cos_sin(encoding, &start, 50, PAIRS, cosines, sines, NULL) == ROPEWALK_OK);
    for (int i = 0; i < 50 * PAIRS; ++i) {
        const double angle = i / PAIRS * frequency(i % PAIRS);
        CHECK(fabs(cosines[i] - cos(angle)) < 1.2e-7 && fabs(sines[i] - sin(angle)) < 1.2e-7);
    }
    const ropewalk_table table = {
        .struct_size = sizeof table, .cos = cosines, .sin = sines, .rows = 50, .columns = PAIRS, .type = ROPEWALK_F32};
    const ropewalk_options options = {.struct_size = sizeof options, .table = &table};
    fill(q, Q_SIZE), fill(by_table, Q_SIZE);
    const ropewalk_view view = ropewalk_thd(q, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_view table_view = ropewalk_thd(by_table, ROPEWALK_F32, TOKENS, HEADS, DIM);
    ropewalk_positions positions = ropewalk_offset(43);
    CHECK(ropewalk_rotate(&view, NULL, encoding, &positions, NULL) == ROPEWALK_OK);
    CHECK(ropewalk_rotate(&table_view, NULL, encoding, &positions, &options) == ROPEWALK_OK);
    for (int i = 0; i < Q_SIZE; ++i) CHECK(fabsf(q[i] - by_table[i]) < 1e-6F);
    positions.first = 44;
    CHECK_INVALID(ropewalk_rotate(&table_view, NULL, encoding, &positions, &options), "50");
    // Row r of a table by token belongs to token r.
    ropewalk_table by_token = table;
    by_token.cos = cosines + 43 * PAIRS, by_token.sin = sines + 43 * PAIRS, by_token.rows = TOKENS;
    by_token.by_token = 1;
    const ropewalk_options token_options = {.struct_size = sizeof token_options, .table = &by_token};
    static float q2[Q_SIZE];
    fill(q2, Q_SIZE);
    const ropewalk_view view2 = ropewalk_thd(q2, ROPEWALK_F32, TOKENS, HEADS, DIM);
    CHECK(ropewalk_rotate(&view2, NULL, encoding, &start, &token_options) == ROPEWALK_OK);
    CHECK(memcmp(q2, by_table, sizeof q2) == 0);

    CHECK_INVALID(ropewalk_cos_sin(NULL, &start, 50, PAIRS, cosines, sines, NULL), "encoding is NULL");
    CHECK_INVALID(ropewalk_cos_sin(encoding, NULL, 50, PAIRS, cosines, sines, NULL), "positions is NULL");
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 50, PAIRS, NULL, sines, NULL), "cos is NULL");
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 50, PAIRS, cosines, NULL, NULL), "sin is NULL");
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 50, PAIRS, cosines, cosines + 8, NULL), "overlap");
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, -1, PAIRS, cosines, sines, NULL), "-1");
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, INT64_MAX, PAIRS, cosines, sines, NULL), "more floats");
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 1, PAIRS + 1, cosines, sines, NULL), "33");
    ropewalk_options threads = {.struct_size = sizeof threads, .threads = -2};
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 1, PAIRS, cosines, sines, &threads), "threads must not be");
    threads.threads = 0, threads.table = &table;
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 1, PAIRS, cosines, sines, &threads), "threads and pool only");
    threads.table = NULL, threads.direction = ROPEWALK_INVERSE;
    CHECK_INVALID(ropewalk_cos_sin(encoding, &start, 1, PAIRS, cosines, sines, &threads), "got direction 1");
    by_token.cos = NULL;
    CHECK_INVALID(ropewalk_rotate(&view2, NULL, encoding, &start, &token_options), "options.table.cos is NULL");
    by_token = table, by_token.sin = NULL;
    CHECK_INVALID(ropewalk_rotate(&view2, NULL, encoding, &start, &token_options), "options.table.sin is NULL");
    by_token = table, by_token.by_token = 2;
    CHECK_INVALID(ropewalk_rotate(&view2, NULL, encoding, &start, &token_options), "by_token must be 0 or 1, got 2");
    by_token = table, by_token.type = ROPEWALK_F64;
    CHECK_INVALID(ropewalk_rotate(&view2, NULL, encoding, &start, &token_options), "a table of f64 needs tensors of");
    CHECK(memcmp(q2, by_table, sizeof q2) == 0);
    ropewalk_encoding_destroy(encoding);
}

static void test_prepared(int layout) {
    ropewalk_encoding* const encoding = make("linear:2", layout);
    static float q[Q_SIZE], k[K_SIZE], slot[K_SIZE];
    const ropewalk_view q_view = ropewalk_thd(q, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_view k_view = ropewalk_thd(k, ROPEWALK_F32, TOKENS, KV_HEADS, DIM);
    ropewalk_prepared* prepared = NULL;
    CHECK(ropewalk_prepare(&q_view, &k_view, NULL, NULL, encoding, NULL, &prepared) == ROPEWALK_OK);
    ropewalk_encoding_destroy(encoding);  // which the prepared rotation has copied

    int64_t running[TOKENS];
    for (int layer = 0; layer < 3; ++layer) {
        fill(q, Q_SIZE), fill(k, K_SIZE);
        for (int i = 0; i < TOKENS; ++i) running[i] = 5000 + layer / 2 + i;
        CHECK(ropewalk_prepared_run(prepared, q, k, running[0]) == ROPEWALK_OK);
        CHECK(largest_error(q, HEADS, running, 2, layout) < 3e-7);
        CHECK(largest_error(k, KV_HEADS, running, 2, layout) < 3e-7);
    }
    const int64_t ids[TOKENS] = {5, 0, 70000, -3, 12, 12, 1};
    fill(q, Q_SIZE), fill(k, K_SIZE);
    CHECK(ropewalk_prepared_run_ids(prepared, q, k, ids, TOKENS) == ROPEWALK_OK);
    CHECK(largest_error(q, HEADS, ids, 2, layout) < 3e-7);
    CHECK(largest_error(k, KV_HEADS, ids, 2, layout) < 3e-7);
    fill(q, Q_SIZE), fill(k, K_SIZE);
    CHECK(ropewalk_prepared_run_ids_to(prepared, q, k, q, slot, ids, TOKENS) == ROPEWALK_OK);
    CHECK(largest_error(slot, KV_HEADS, ids, 2, layout) < 3e-7);
    fill(q, Q_SIZE);
    CHECK(ropewalk_prepared_run_to(prepared, q, k, q, slot, running[0]) == ROPEWALK_OK);
    CHECK(largest_error(q, HEADS, running, 2, layout) < 3e-7);
    CHECK(largest_error(slot, KV_HEADS, running, 2, layout) < 3e-7);
    for (int i = 0; i < K_SIZE; ++i) CHECK(k[i] == number(i));

    fill(q, Q_SIZE);
    CHECK_INVALID(ropewalk_prepared_run(NULL, q, k, 0), "prepared is NULL");
    CHECK_INVALID(ropewalk_prepared_run(prepared, NULL, k, 0), "cannot rotate q at 0x0");
    CHECK_INVALID(ropewalk_prepared_run(prepared, q, NULL, 0), "k at 0x0");
    CHECK_INVALID(ropewalk_prepared_run(prepared, (char*)q + 1, k, 9), "aligned");
    CHECK_INVALID(ropewalk_prepared_run(prepared, q, k, INT64_MAX), "position 9223372036854775807");
    CHECK_INVALID(ropewalk_prepared_run_to(prepared, q, k, q, NULL, 0), "k_out is NULL but k is not");
    CHECK_INVALID(ropewalk_prepared_run_to(prepared, q, NULL, q, slot, 0), "k is NULL but k_out is not");
    CHECK_INVALID(ropewalk_prepared_run_ids(prepared, q, k, NULL, TOKENS), "ids is NULL");
    CHECK_INVALID(ropewalk_prepared_run_ids(prepared, q, k, ids, TOKENS - 1), "6 positions");
    CHECK_INVALID(ropewalk_prepared_run_ids(prepared, q, k, ids, -1), "count must not be negative, got -1");
    CHECK_INVALID(ropewalk_prepared_run_ids_to(NULL, q, k, q, slot, ids, TOKENS), "prepared is NULL");
    for (int i = 0; i < Q_SIZE; ++i) CHECK(q[i] == number(i));
    ropewalk_prepared_destroy(prepared);
    ropewalk_prepared_destroy(NULL);
}

static void test_refusals_of_prepare(void) {
    ropewalk_encoding* const encoding = make("default", ROPEWALK_HALF_SPLIT);
    static float q[Q_SIZE], other[Q_SIZE];
    const ropewalk_view view = ropewalk_thd(q, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_view out = ropewalk_thd(other, ROPEWALK_F16, TOKENS, HEADS, DIM);
    ropewalk_prepared* prepared = (ropewalk_prepared*)other;
    CHECK_INVALID(ropewalk_prepare(NULL, NULL, NULL, NULL, encoding, NULL, &prepared), "q and k are both NULL");
    CHECK(prepared == NULL);
    CHECK_INVALID(ropewalk_prepare(&view, NULL, NULL, NULL, encoding, NULL, NULL), "prepared is NULL");
    CHECK_INVALID(ropewalk_prepare(&view, NULL, NULL, NULL, NULL, NULL, &prepared), "encoding is NULL");
    CHECK_INVALID(ropewalk_prepare(&view, NULL, NULL, &out, encoding, NULL, &prepared), "k is NULL but k_out is not");
    CHECK_INVALID(ropewalk_prepare(NULL, &view, &out, NULL, encoding, NULL, &prepared), "q is NULL but q_out is not");
    CHECK_INVALID(ropewalk_prepare(&view, NULL, &out, NULL, encoding, NULL, &prepared),
                  "q is f32 but its output is f16");
    ropewalk_encoding_destroy(encoding);
}

struct counting_pool {
    int calls, tasks;
};

static void run_in_turn(void* pool, int count, void (*task)(void* argument, int index), void* argument) {
    struct counting_pool* const counts = pool;
    ++counts->calls;
    for (int i = count - 1; i >= 0; --i, ++counts->tasks) task(argument, i);
}

/// The threads of the caller do all tasks of a large call, and the result is that of one thread.
static void test_pool(void) {
    enum { MANY = 4096, SIZE = MANY * HEADS * DIM };
    ropewalk_encoding* const encoding = make("default", ROPEWALK_HALF_SPLIT);
    float* const one = malloc(SIZE * sizeof *one);
    float* const pooled = malloc(SIZE * sizeof *pooled);
    if (one == NULL || pooled == NULL) exit(1);
    fill(one, SIZE), fill(pooled, SIZE);
    struct counting_pool counts = {0, 0};
    ropewalk_thread_pool pool = {.struct_size = sizeof pool, .run = run_in_turn, .pool = &counts, .size = 3};
    const ropewalk_options serial = {.struct_size = sizeof serial, .threads = 1};
    ropewalk_options options = {.struct_size = sizeof options, .pool = &pool};
    const ropewalk_positions start = ropewalk_offset(7), moved = ropewalk_offset(70);
    const ropewalk_view one_view = ropewalk_thd(one, ROPEWALK_F32, MANY, HEADS, DIM);
    const ropewalk_view pooled_view = ropewalk_thd(pooled, ROPEWALK_F32, MANY, HEADS, DIM);
    CHECK(ropewalk_rotate(&one_view, NULL, encoding, &start, &serial) == ROPEWALK_OK);
    CHECK(ropewalk_rotate(&pooled_view, NULL, encoding, &start, &options) == ROPEWALK_OK);
    CHECK(counts.calls == 1 && counts.tasks == 3);
    CHECK(ropewalk_rerotate(&one_view, NULL, encoding, &start, encoding, &moved, &serial) == ROPEWALK_OK);
    CHECK(ropewalk_rerotate(&pooled_view, NULL, encoding, &start, encoding, &moved, &options) == ROPEWALK_OK);
    CHECK(counts.calls == 2 && counts.tasks == 6);
    options.threads = 2;
    CHECK(ropewalk_cos_sin(encoding, &start, SIZE / PAIRS / 2, PAIRS, pooled, pooled + SIZE / 2, &options) ==
          ROPEWALK_OK);
    CHECK(counts.calls == 3 && counts.tasks == 8);
    CHECK(ropewalk_cos_sin(encoding, &start, SIZE / PAIRS / 2, PAIRS, one, one + SIZE / 2, &serial) == ROPEWALK_OK);
    CHECK(memcmp(one, pooled, SIZE * sizeof *one) == 0);
    pool.size = 0;
    CHECK_INVALID(ropewalk_rotate(&one_view, NULL, encoding, &start, &options), "at least 1 thread, got 0");
    pool.size = 1, pool.run = NULL;
    CHECK_INVALID(ropewalk_rotate(&one_view, NULL, encoding, &start, &options), "options.pool.run is NULL");
    free(one);
    free(pooled);
    ropewalk_encoding_destroy(encoding);
}

static void test_refusals_of_encodings(void) {
    ropewalk_geometry geometry = geometry_of(ROPEWALK_HALF_SPLIT);
    ropewalk_encoding* encoding = (ropewalk_encoding*)&geometry;
    CHECK_INVALID(ropewalk_encoding_create(NULL, "default", &encoding), "geometry is NULL");
    CHECK(encoding == NULL);
    CHECK_INVALID(ropewalk_encoding_create(&geometry, NULL, &encoding), "expression is NULL");
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "default", NULL), "encoding is NULL");
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "linaer:8", &encoding), "linaer");
    geometry.layout = 0;
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "default", &encoding), "geometry.layout must be");
    geometry = geometry_of(ROPEWALK_HALF_SPLIT);
    geometry.head_dim = 63;
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "default", &encoding), "63");
    geometry = geometry_of(ROPEWALK_HALF_SPLIT);
    geometry.base = -1;
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "default", &encoding), "base");
    geometry = geometry_of(ROPEWALK_HALF_SPLIT);
    geometry.reserved = 1;
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "default", &encoding), "geometry.reserved must be 0, got 1");

    CHECK(ropewalk_encoding_pairs(NULL) == -1);
    CHECK(strstr(ropewalk_last_error(), "encoding is NULL") != NULL);
    CHECK(ropewalk_encoding_head_dim(NULL) == -1 && ropewalk_encoding_layout(NULL) == -1);
    CHECK(isnan(ropewalk_encoding_attention_factor(NULL)) && isnan(ropewalk_encoding_softmax_factor(NULL)));
    CHECK(ropewalk_encoding_expression(NULL) == NULL);
    CHECK_INVALID(ropewalk_encoding_inv_freq(NULL, NULL, 0), "encoding is NULL");
}

/// Structs of other versions of the library: shorter, longer with zeros, longer with an unknown member that is set.
static void test_struct_sizes(void) {
    struct {
        ropewalk_geometry known;
        int64_t unknown;
    } later = {geometry_of(ROPEWALK_HALF_SPLIT), 0};
    ropewalk_encoding* encoding = NULL;
    later.known.struct_size = sizeof later;
    CHECK(ropewalk_encoding_create(&later.known, "default", &encoding) == ROPEWALK_OK);
    ropewalk_encoding_destroy(encoding);
    later.unknown = 5;
    CHECK_FAILS(ropewalk_encoding_create(&later.known, "default", &encoding), ROPEWALK_UNSUPPORTED, "knows only");
    later.known.struct_size = 0;
    CHECK_INVALID(ropewalk_encoding_create(&later.known, "default", &encoding), "geometry.struct_size is 0");
    later.known.struct_size = (size_t)-1;
    CHECK_INVALID(ropewalk_encoding_create(&later.known, "default", &encoding), "geometry.struct_size is");
}

static void test_refusals_of_rotations(void) {
    ropewalk_encoding* const encoding = make("default", ROPEWALK_HALF_SPLIT);
    ropewalk_encoding* const interleaved = make("default", ROPEWALK_INTERLEAVED);
    static float q[Q_SIZE], other[Q_SIZE];
    fill(q, Q_SIZE);
    const ropewalk_view view = ropewalk_thd(q, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_view out = ropewalk_thd(other, ROPEWALK_F32, TOKENS, HEADS, DIM);
    const ropewalk_positions start = ropewalk_offset(0);
    CHECK_INVALID(ropewalk_rotate(NULL, NULL, encoding, &start, NULL), "q and k are both NULL");
    CHECK_INVALID(ropewalk_rotate(&view, NULL, NULL, &start, NULL), "encoding is NULL");
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, NULL, NULL), "positions is NULL");
    CHECK_INVALID(ropewalk_rotate_to(&view, NULL, NULL, NULL, encoding, &start, NULL), "q_out is NULL but q is not");
    CHECK_INVALID(ropewalk_rotate_to(NULL, &view, NULL, NULL, encoding, &start, NULL), "k_out is NULL but k is not");
    CHECK_INVALID(ropewalk_rotate_to(&view, NULL, &out, &out, encoding, &start, NULL), "k is NULL but k_out is not");
    const ropewalk_options negative = {.struct_size = sizeof negative, .threads = -1};
    CHECK_INVALID(ropewalk_rerotate(NULL, NULL, encoding, &start, encoding, &start, NULL), "k is NULL");
    CHECK_INVALID(ropewalk_rerotate(&view, NULL, NULL, &start, encoding, &start, NULL), "source is NULL");
    CHECK_INVALID(ropewalk_rerotate(&view, NULL, encoding, NULL, encoding, &start, NULL), "source_positions is NULL");
    CHECK_INVALID(ropewalk_rerotate(&view, NULL, encoding, &start, NULL, &start, NULL), "target is NULL");
    CHECK_INVALID(ropewalk_rerotate(&view, NULL, encoding, &start, encoding, NULL, NULL), "target_positions is NULL");
    CHECK_INVALID(ropewalk_rerotate(&view, NULL, encoding, &start, interleaved, &start, NULL), "layout");
    CHECK_INVALID(ropewalk_rerotate(&view, NULL, encoding, &start, encoding, &start, &negative), "threads");

    ropewalk_view bad = view;
    bad.data = NULL;
    CHECK_INVALID(ropewalk_rotate(&bad, NULL, encoding, &start, NULL), "q.data is NULL");
    bad = view, bad.type = 0;
    CHECK_INVALID(ropewalk_rotate(&bad, NULL, encoding, &start, NULL), "q.type must be");
    bad = view, bad.head_dim = 32;
    CHECK_INVALID(ropewalk_rotate(&bad, NULL, encoding, &start, NULL), "head_dim 32");
    bad = view, bad.tokens = -1;
    CHECK_INVALID(ropewalk_rotate(&bad, NULL, encoding, &start, NULL), "negative");
    bad = view, bad.stride_head = 1;
    CHECK_INVALID(ropewalk_rotate(&bad, NULL, encoding, &start, NULL), "share memory");
    bad = view, bad.struct_size = 8;
    CHECK_INVALID(ropewalk_rotate(NULL, &bad, encoding, &start, NULL), "k.struct_size is 8");

    const int64_t ids[TOKENS] = {0};
    ropewalk_positions positions = ropewalk_ids64(ids, TOKENS - 1);
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &positions, NULL), "positions has 6 entries for 7 tokens");
    positions = ropewalk_ids64(NULL, TOKENS);
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &positions, NULL), "positions.data is NULL");
    positions = ropewalk_ids64(ids, TOKENS), positions.first = 3;
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &positions, NULL), "positions.first must be 0");
    positions = start, positions.kind = 77;
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &positions, NULL), "got 77");
    positions.kind = -1;
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &positions, NULL), "got -1");

    ropewalk_options options = {.struct_size = sizeof options, .direction = 4};
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &start, &options), "options.direction must be");
    options.direction = 0, options.threads = -1;
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &start, &options), "threads must not be negative, got -1");
    options.threads = 0, options.fresh_output = 7;
    CHECK_INVALID(ropewalk_rotate(&view, NULL, encoding, &start, &options), "fresh_output must be 0 or 1, got 7");

    for (int i = 0; i < Q_SIZE; ++i) CHECK(q[i] == number(i));
    // An empty tensor needs no memory.
    const ropewalk_view empty = ropewalk_thd(NULL, ROPEWALK_F32, 0, HEADS, DIM);
    CHECK(ropewalk_rotate(&empty, NULL, encoding, &start, NULL) == ROPEWALK_OK);
    const ropewalk_view less_than_empty = ropewalk_thd(NULL, ROPEWALK_F32, -1, 0, DIM);
    CHECK_INVALID(ropewalk_rotate(&less_than_empty, NULL, encoding, &start, NULL), "negative");
    ropewalk_encoding_destroy(interleaved);
    ropewalk_encoding_destroy(encoding);
}

static void* fail_in_thread(void* failed) {
    const int fresh = strcmp(ropewalk_last_error(), "") == 0;
    ropewalk_encoding* encoding = NULL;
    const int result = ropewalk_encoding_create(NULL, "default", &encoding);
    *(int*)failed = fresh && result == ROPEWALK_INVALID_ARGUMENT;
    return NULL;
}

static void test_error_text_of_a_thread(void) {
    const ropewalk_geometry geometry = geometry_of(ROPEWALK_HALF_SPLIT);
    ropewalk_encoding* encoding = NULL;
    CHECK_INVALID(ropewalk_encoding_create(&geometry, "abacus", &encoding), "abacus");
    pthread_t thread;
    int failed = 0;
    CHECK(pthread_create(&thread, NULL, fail_in_thread, &failed) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(failed && strstr(ropewalk_last_error(), "abacus") != NULL);
}

int main(void) {
    test_version_and_instruction_sets();
    test_encoding();
    test_config();
    test_rotations(ROPEWALK_HALF_SPLIT);
    test_rotations(ROPEWALK_INTERLEAVED);
    test_prepared(ROPEWALK_HALF_SPLIT);
    test_prepared(ROPEWALK_INTERLEAVED);
    test_refusals_of_prepare();
    test_pool();
    test_orders();
    test_tables();
    test_refusals_of_encodings();
    test_struct_sizes();
    test_refusals_of_rotations();
    test_error_text_of_a_thread();
    if (failures == 0) printf("C interface: passed\n");
    return failures != 0;
}

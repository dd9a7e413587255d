// Prefill and decode through the C interface, in C99. Argument: an expression of policies without xpos, as linear:8.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <ropewalk/ropewalk.h>

enum { LAYERS = 4, HEADS = 8, KV_HEADS = 2, HEAD_DIM = 64, PAIRS = HEAD_DIM / 2, PROMPT = 100, TOKENS = 150 };
enum { Q_SIZE = HEADS * HEAD_DIM, K_SIZE = KV_HEADS * HEAD_DIM };

/// Keys of all layers, and the queries of the current token or of the prompt.
static float cache[LAYERS][TOKENS][K_SIZE], queries[PROMPT][Q_SIZE];

/// Exits with the message of the library, which has the values and the remedy.
static void check(int result) {
    if (result == ROPEWALK_OK) return;
    fprintf(stderr, "decode: %s\n", ropewalk_last_error());
    exit(EXIT_FAILURE);
}

/// Element i of the key of a token. Stands for the projection of a layer.
static float projected(int layer, int position, int i) { return (float)sin(i + 7 * position + 131 * layer); }

static void project(int layer, int position) {
    for (int i = 0; i < K_SIZE; ++i) cache[layer][position][i] = projected(layer, position, i);
}

/// Encodes the keys of the prompt, in one call per layer.
static void prefill(const ropewalk_encoding* encoding) {
    const ropewalk_positions positions = ropewalk_offset(0);
    const ropewalk_view q = ropewalk_thd(queries, ROPEWALK_F32, PROMPT, HEADS, HEAD_DIM);
    for (int layer = 0; layer < LAYERS; ++layer) {
        for (int position = 0; position < PROMPT; ++position) project(layer, position);
        const ropewalk_view k = ropewalk_thd(cache[layer], ROPEWALK_F32, PROMPT, KV_HEADS, HEAD_DIM);
        check(ropewalk_rotate(&q, &k, encoding, &positions, NULL));
    }
}

/// Encodes one token at a time by a prepared rotation. All layers share the cosines and sines of a token.
static void decode(const ropewalk_encoding* encoding) {
    const ropewalk_view q = ropewalk_thd(queries, ROPEWALK_F32, 1, HEADS, HEAD_DIM);
    const ropewalk_view k = ropewalk_thd(cache, ROPEWALK_F32, 1, KV_HEADS, HEAD_DIM);
    ropewalk_prepared* rotation = NULL;
    check(ropewalk_prepare(&q, &k, NULL, NULL, encoding, NULL, &rotation));
    for (int position = PROMPT; position < TOKENS; ++position) {
        for (int layer = 0; layer < LAYERS; ++layer) {
            project(layer, position);
            check(ropewalk_prepared_run(rotation, queries, cache[layer][position], position));
        }
    }
    ropewalk_prepared_destroy(rotation);
}

/// Largest difference between the cache and the formula of RoPE in double precision.
static double difference(const ropewalk_encoding* encoding) {
    double inv_freq[PAIRS], largest = 0;
    check(ropewalk_encoding_inv_freq(encoding, inv_freq, PAIRS));
    const double factor = ropewalk_encoding_attention_factor(encoding);
    for (int layer = 0; layer < LAYERS; ++layer) {
        for (int position = 0; position < TOKENS; ++position) {
            for (int i = 0; i < K_SIZE; ++i) {
                if (i % HEAD_DIM >= PAIRS) continue;  // i is the first element of a pair, i + PAIRS the second
                const double x = projected(layer, position, i), y = projected(layer, position, i + PAIRS);
                const double angle = position * inv_freq[i % HEAD_DIM], c = factor * cos(angle),
                             s = factor * sin(angle);
                largest = fmax(largest, fabs(cache[layer][position][i] - (x * c - y * s)));
                largest = fmax(largest, fabs(cache[layer][position][i + PAIRS] - (x * s + y * c)));
            }
        }
    }
    return largest;
}

int main(int argc, char** argv) {
    const ropewalk_geometry geometry = {
        .struct_size = sizeof geometry, .head_dim = HEAD_DIM, .base = 500000.0, .layout = ROPEWALK_HALF_SPLIT};
    ropewalk_encoding* encoding = NULL;
    check(ropewalk_encoding_create(&geometry, argc > 1 ? argv[1] : "yarn:8,original_length=4096", &encoding));

    prefill(encoding);
    decode(encoding);

    const double largest = difference(encoding);
    printf("ropewalk %s, %s, %s: %d + %d tokens differ by at most %.2g from double precision\n", ropewalk_version(),
           ropewalk_instruction_set(), ropewalk_encoding_expression(encoding), PROMPT, TOKENS - PROMPT, largest);
    ropewalk_encoding_destroy(encoding);
    return largest < 1e-6 ? EXIT_SUCCESS : EXIT_FAILURE;
}

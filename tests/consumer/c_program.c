// A user of the C interface: compares a rotation with the formula, and reads the message of an error.

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <ropewalk/ropewalk.h>

int main(void) {
    const ropewalk_geometry geometry = {.struct_size = sizeof geometry, .head_dim = 4, .layout = ROPEWALK_INTERLEAVED};
    ropewalk_encoding* encoding = NULL;
    if (ropewalk_encoding_create(&geometry, "linear:2", &encoding) != ROPEWALK_OK) {
        fprintf(stderr, "%s\n", ropewalk_last_error());
        return 1;
    }
    float q[4] = {1, 2, 3, 4};
    const ropewalk_view view = ropewalk_thd(q, ROPEWALK_F32, 1, 1, 4);
    const ropewalk_positions positions = ropewalk_offset(5);
    if (ropewalk_rotate(&view, NULL, encoding, &positions, NULL) != ROPEWALK_OK) return 2;
    if (fabs(q[0] - (1 * cos(2.5) - 2 * sin(2.5))) > 1e-6) return 3;
    if (ropewalk_rotate(&view, NULL, NULL, &positions, NULL) != ROPEWALK_INVALID_ARGUMENT) return 4;
    ropewalk_encoding_destroy(encoding);
    return strstr(ropewalk_last_error(), "encoding is NULL") == NULL;
}

/* lamina/c.h as C11 sees it: a 1x1 convolution from text to numbers. */
#include <lamina/c.h>
#include <stdio.h>
#include <string.h>

int lamina_test_convolution(char* message, size_t bytes);

/* y = 2 x + 1 on two pixels of two channels. 0: right; else where it went wrong, with a message. */
int lamina_test_convolution(char* message, size_t bytes) {
  const char* text = "conv2d ih=1 iw=2 ic=2 oc=2";
  float w[] = {2, 0, 0, 2}, bias[] = {1, 1}, x[] = {1, 2, 3, 4}, y[4] = {0};
  lamina_tensor t[8];
  size_t count = 0, i;
  lamina_operator* op = NULL;
  const lamina_context context = {.size = sizeof(context), .isa = LAMINA_ISA_BEST};
  memset(t, 0, sizeof(t));
  t[0].size = sizeof(t[0]);
  if (lamina_tensors(text, t, 8, &count) != LAMINA_OK || count != 4) {
    snprintf(message, bytes, "lamina_tensors: %s", lamina_last_error());
    return 1;
  }
  for (i = 0; i < count; ++i) {
    t[i].data = strcmp(t[i].name, "w") == 0      ? w
                : strcmp(t[i].name, "bias") == 0 ? bias
                : strcmp(t[i].name, "x") == 0    ? x
                                                 : y;
  }
  /* The weights come first. */
  if (lamina_prepare(text, t, 2, &context, &op) != LAMINA_OK || lamina_run(op, t + 2, 2, NULL, 0) != LAMINA_OK) {
    snprintf(message, bytes, "lamina_prepare or lamina_run: %s", lamina_last_error());
    return 2;
  }
  lamina_destroy(op);
  for (i = 0; i < 4; ++i) {
    if (y[i] != 2 * x[i] + 1) {
      snprintf(message, bytes, "y[%d] = %g", (int)i, y[i]);
      return 3;
    }
  }
  return 0;
}

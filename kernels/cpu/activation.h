// Activations over rows of floats in place, for what the clamp in a kernel's registers does not cover.
#ifndef LAMINA_KERNELS_CPU_ACTIVATION_H_
#define LAMINA_KERNELS_CPU_ACTIVATION_H_

#include <cstddef>

#include "lamina/context.h"
#include "lamina/types.h"

namespace lamina::cpu {

// x[i] = act(x[i]) (+ residual[i] unless null), i < n. Any n, any alignment.
using ActivateFn = void (*)(const Activation& activation, float* x, const float* residual, size_t n);
ActivateFn GetActivate(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ACTIVATION_H_

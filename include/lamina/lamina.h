// All of Lamina.
#ifndef LAMINA_LAMINA_H_
#define LAMINA_LAMINA_H_

#include "lamina/additive_attention.h"
#include "lamina/context.h"
#include "lamina/conv2d.h"
#include "lamina/cost.h"
#include "lamina/fully_connected.h"
#include "lamina/machine.h"
#include "lamina/multi_head_attention.h"
#include "lamina/problem.h"
#include "lamina/separable_conv2d.h"
#include "lamina/status.h"
#include "lamina/types.h"
#include "lamina/version.h"
#include "lamina/weights.h"

#endif  // LAMINA_LAMINA_H_

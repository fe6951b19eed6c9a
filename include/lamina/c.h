/* The C interface (C11), for engines and languages that do not speak C++: a thin shim over the C++ one, whose headers
 * say what each operator computes.
 *
 * A problem is its descriptor's text, the same that ToString prints and `lamina` reads:
 *     "conv2d ih=56 iw=56 ic=64 oc=64 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1"
 * Tensors are named as in the C++ structs ("x", "w", "key_lengths") and checked against the descriptor at the border;
 * lamina_tensors lists those of a problem. A whole convolution:
 *     lamina_operator* op = NULL;
 *     lamina_tensor weights[] = {{.size = sizeof(lamina_tensor), .name = "w", .data = w, .ndim = 4, .shape = {64, 3, 3,
 * 64}},
 *                                {.size = sizeof(lamina_tensor), .name = "bias", .data = b, .ndim = 1, .shape = {64}}};
 *     if (lamina_prepare(text, weights, 2, NULL, &op) != LAMINA_OK) puts(lamina_last_error());
 *     lamina_run(op, tensors, 2, NULL, 0);
 *     lamina_destroy(op);
 *
 * Every function that can fail returns a lamina_status; the sentence that says why is lamina_last_error(). No exception
 * leaves the library. Structs start with their size, so that a later version may append fields: what a caller compiled
 * earlier does not have counts as zero. Enumerations are int32_t.
 */
#ifndef LAMINA_C_H_
#define LAMINA_C_H_

#include <stddef.h>
#include <stdint.h>

#define LAMINA_C __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

enum lamina_status {
  LAMINA_OK = 0,
  LAMINA_INVALID_ARGUMENT = 1,     /* the caller asked for nonsense */
  LAMINA_NOT_BUILT = 2,            /* sensible, but this build of the library lacks it */
  LAMINA_UNSUPPORTED_HARDWARE = 3, /* built, but this machine cannot run it */
  LAMINA_OUT_OF_MEMORY = 4,
  LAMINA_DEVICE_ERROR = 5,
  LAMINA_INTERNAL_ERROR = 6 /* a bug of the library */
};

enum lamina_dtype {
  LAMINA_F32 = 0,
  LAMINA_BF16 = 1,
  LAMINA_F16 = 2,
  LAMINA_BOOL = 16, /* one byte, 0 or 1 */
  LAMINA_U8 = 17,
  LAMINA_I32 = 18,
  LAMINA_I64 = 19
};

enum lamina_device { LAMINA_DEVICE_CPU = 0, LAMINA_DEVICE_CUDA = 1 };
enum lamina_backend { LAMINA_BACKEND_CPU = 0, LAMINA_BACKEND_REFERENCE = 1, LAMINA_BACKEND_CUDA = 2 };
enum lamina_isa {
  LAMINA_ISA_BEST = 0,
  LAMINA_ISA_SCALAR = 1,
  LAMINA_ISA_SSE4 = 2,
  LAMINA_ISA_AVX2 = 3,
  LAMINA_ISA_AVX3 = 4
};
enum lamina_accuracy { LAMINA_ACCURACY_DEFAULT = 0, LAMINA_ACCURACY_STRICT = 1, LAMINA_ACCURACY_REDUCED = 2 };
enum lamina_role { LAMINA_WEIGHT = 0, LAMINA_INPUT = 1, LAMINA_OUTPUT = 2 };

enum lamina_idle { LAMINA_IDLE_SLEEP = 0, LAMINA_IDLE_SPIN = 1 }; /* what a pool's threads do between calls */

enum { LAMINA_MAX_DIMS = 6 };

/* A strided tensor of the caller's. */
typedef struct lamina_tensor {
  size_t size;      /* sizeof(lamina_tensor); the same in all of an array */
  const char* name; /* "x": as in the C++ structs */
  void* data;       /* NULL: not given. Only outputs are written */
  int32_t dtype;
  int32_t device;
  int32_t role;     /* told by lamina_tensors; ignored in what the caller gives */
  int32_t optional; /* likewise */
  int32_t ndim;
  int32_t read_only;                /* 1: no output may lie here */
  int64_t shape[LAMINA_MAX_DIMS];   /* slowest dimension first */
  int64_t strides[LAMINA_MAX_DIMS]; /* in elements; all 0: dense */
} lamina_tensor;

typedef struct lamina_cost {
  size_t size; /* sizeof(lamina_cost) */
  int64_t macs, flops, transcendentals, params, weight_bytes, activation_bytes;
} lamina_cost;

/* Threads that kernels run on; wrap the engine's own, and Lamina starts none. */
typedef struct lamina_pool lamina_pool;

typedef struct lamina_pool_functions {
  size_t size;                       /* sizeof(lamina_pool_functions) */
  void* self;                        /* passed to both */
  size_t (*num_threads)(void* self); /* constant; at least 1 */
  /* Calls task(arg, i) once for each i in [0, count), count <= num_threads, possibly at the same time, and returns when
   * all have returned. Never called from within a task. */
  void (*parallel_for)(void* self, size_t count, void (*task)(void* arg, size_t index), void* arg);
  double handoff_ns; /* that handing work to idle threads and waiting for them takes; 0: 20 us, sleeping threads */
} lamina_pool_functions;

/* All zero but size is the default: the CPU, its widest SIMD target, one shared pool of all available threads. */
typedef struct lamina_context {
  size_t size; /* sizeof(lamina_context) */
  int32_t backend, isa, accuracy;
  int32_t reserved;           /* 0 */
  lamina_pool* pool;          /* must outlive the operators prepared with it */
  void* stream;               /* CUDA backend: the cudaStream_t that lamina_run enqueues on */
  const char* machine;        /* a calibration's text as `lamina roof --save` writes it; NULL: the built-in one */
  const char* implementation; /* this candidate or a refusal; NULL: the least predicted time */
} lamina_context;

/* One candidate's answer to one problem; the texts live until the visitor returns. */
typedef struct lamina_candidate {
  size_t size;
  const char* name;    /* "cpu/AVX3/implicit_gemm" */
  const char* refusal; /* the reason, or NULL when accepted */
  double predicted_ns; /* when accepted; on one thread */
  int32_t accuracy;    /* whose bound it keeps */
  int32_t reserved;    /* 0 */
} lamina_candidate;

/* A prepared operator: immutable, so that every function but lamina_destroy may be called from several threads at once.
 */
typedef struct lamina_operator lamina_operator;

LAMINA_C const char* lamina_version(void);    /* "0.1.0" */
LAMINA_C const char* lamina_build_info(void); /* version, commit, SIMD targets, backends, compiler */

/* The sentence of the last failure in the calling thread, until its next one; "" before the first. */
LAMINA_C const char* lamina_last_error(void);

LAMINA_C int32_t lamina_pool_create(size_t threads, int32_t idle, lamina_pool** pool);
LAMINA_C int32_t lamina_pool_wrap(const lamina_pool_functions* functions, lamina_pool** pool);
LAMINA_C void lamina_pool_destroy(lamina_pool* pool); /* NULL is fine */

/* The weights, inputs and outputs of a problem with their shapes and strides, data NULL. Writes the first `capacity` of
 * them and how many there are. tensors may be NULL when capacity is 0; else tensors[0].size must be set. The size of
 * "prepared_keys" is lamina_prepared_keys_bytes' and told as -1. */
LAMINA_C int32_t lamina_tensors(const char* desc, lamina_tensor* tensors, size_t capacity, size_t* count);

/* What the problem costs, whatever kernel runs it; cost->size must be set. */
LAMINA_C int32_t lamina_cost_of(const char* desc, lamina_cost* cost);

/* Calls visit for each candidate of the context's backend. context NULL: the default. Prepares nothing. */
LAMINA_C int32_t lamina_candidates(const char* desc, const lamina_context* context,
                                   void (*visit)(void* arg, const lamina_candidate* candidate), void* arg);

/* Validates, chooses an implementation and packs the weights, which lie on the host whatever the backend and may be
 * freed afterwards. All that is slow or can fail is here. On failure *op is NULL. */
LAMINA_C int32_t lamina_prepare(const char* desc, const lamina_tensor* weights, size_t count,
                                const lamina_context* context, lamina_operator** op);

/* The packed weights as a file, for the CPU backend, which a later process maps instead of packing; see
 * Operator::SavePacked and LoadPacked. The file must not change while an operator uses it. */
LAMINA_C int32_t lamina_save_packed(const lamina_operator* op, const char* path);
LAMINA_C int32_t lamina_load_packed(const char* path, const lamina_context* context, lamina_operator** op);

/* The same operator for other run-time sizes: same implementation, shared packed weights, microseconds. */
LAMINA_C int32_t lamina_reshape(const lamina_operator* op, const char* desc, lamina_operator** reshaped);

/* Computes the outputs. scratch: lamina_scratch_bytes() bytes at a multiple of 64, and their number; or NULL for a
 * per-thread arena that grows on that thread's first call. Otherwise nothing is allocated. CUDA backend: tensors and
 * scratch lie on the device (numbers, such as "position", on the host), scratch NULL is the operator's own; the work is
 * enqueued on the context's stream. */
LAMINA_C int32_t lamina_run(const lamina_operator* op, const lamina_tensor* tensors, size_t count, void* scratch,
                            size_t scratch_bytes);

LAMINA_C void lamina_destroy(lamina_operator* op); /* NULL is fine */

/* Questions about a prepared operator. Texts live as long as it does. */
LAMINA_C int32_t lamina_scratch_bytes(const lamina_operator* op, size_t* bytes);
LAMINA_C int32_t lamina_packed_bytes(const lamina_operator* op, size_t* bytes);
LAMINA_C int32_t lamina_implementation(const lamina_operator* op, const char** name); /* "cpu/AVX3/implicit_gemm" */
LAMINA_C int32_t lamina_descriptor(const lamina_operator* op, const char** desc);
LAMINA_C int32_t lamina_explain(const lamina_operator* op, const char** text); /* every candidate, a line each */

/* additive_attention: does once per sentence what depends on the keys alone ("keys", and "key_lengths" if any). */
LAMINA_C int32_t lamina_prepared_keys_bytes(const lamina_operator* op, size_t* bytes);
LAMINA_C int32_t lamina_prepare_keys(const lamina_operator* op, const lamina_tensor* tensors, size_t count,
                                     void* prepared_keys, void* scratch, size_t scratch_bytes);

/* DLPack (1.x, github.com/dmlc/dlpack), the tensors that frameworks hand each other: the form of before 1.0 and the
 * versioned one. Both need no header here. LAMINA_NOT_BUILT where the library was built without dlpack.h. */
struct DLManagedTensor;
struct DLManagedTensorVersioned;

/* Describes the memory of `managed` as the tensor `name`; nothing is copied, and `managed` stays the caller's, to keep
 * until the tensor is no longer used and to delete. tensor->size must be set. Refused: another major version, a device
 * that is neither the CPU nor CUDA, a type that lamina_dtype lacks, more than LAMINA_MAX_DIMS dimensions, strides that
 * are negative or let elements share memory. A versioned tensor's flag for reading only becomes read_only. */
LAMINA_C int32_t lamina_from_dlpack(const char* name, const struct DLManagedTensor* managed, lamina_tensor* tensor);
LAMINA_C int32_t lamina_from_dlpack_versioned(const char* name, const struct DLManagedTensorVersioned* managed,
                                              lamina_tensor* tensor);

/* The other way: *managed describes the tensor's memory, on device `device_id` of its kind (0 for the CPU), until its
 * deleter is called, which calls release(arg) unless that is NULL, and frees *managed alone. A read-only tensor is
 * refused by the older form, which cannot say so. On failure *managed is NULL and release is not called. */
LAMINA_C int32_t lamina_to_dlpack(const lamina_tensor* tensor, int32_t device_id, void (*release)(void* arg), void* arg,
                                  struct DLManagedTensor** managed);
LAMINA_C int32_t lamina_to_dlpack_versioned(const lamina_tensor* tensor, int32_t device_id, void (*release)(void* arg),
                                            void* arg, struct DLManagedTensorVersioned** managed);

#ifdef __cplusplus
}
#endif

#endif /* LAMINA_C_H_ */

// DLPack at the border of the C interface, both forms: what comes in and goes out, what is refused, who frees what.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "lamina/c.h"
#if LAMINA_HAS_DLPACK
#include <dlpack/dlpack.h>
#endif

namespace {

lamina_tensor Sized() {
  lamina_tensor t = {};
  t.size = sizeof(t);
  return t;
}

#if LAMINA_HAS_DLPACK

// A producer's tensor of f32 [2, 3, 4], of either form.
template <class Managed>
struct Produced {
  Produced() {
    managed.dl_tensor = {.data = values.data(),
                         .device = {kDLCPU, 0},
                         .ndim = 3,
                         .dtype = {kDLFloat, 32, 1},
                         .shape = shape.data(),
                         .strides = strides.data(),
                         .byte_offset = 0};
    if constexpr (requires { managed.flags; }) managed.version = {1, 3};
  }
  DLTensor& dl() { return managed.dl_tensor; }

  std::vector<float> values = std::vector<float>(64);
  std::vector<int64_t> shape = {2, 3, 4}, strides = {12, 4, 1};
  Managed managed = {};
};

int32_t From(const char* name, const DLManagedTensor* m, lamina_tensor* t) { return lamina_from_dlpack(name, m, t); }
int32_t From(const char* name, const DLManagedTensorVersioned* m, lamina_tensor* t) {
  return lamina_from_dlpack_versioned(name, m, t);
}
int32_t To(const lamina_tensor* t, int32_t id, void (*release)(void*), void* arg, DLManagedTensor** m) {
  return lamina_to_dlpack(t, id, release, arg, m);
}
int32_t To(const lamina_tensor* t, int32_t id, void (*release)(void*), void* arg, DLManagedTensorVersioned** m) {
  return lamina_to_dlpack_versioned(t, id, release, arg, m);
}

template <class Managed>
class Dlpack : public testing::Test {};
using Forms = testing::Types<DLManagedTensor, DLManagedTensorVersioned>;
TYPED_TEST_SUITE(Dlpack, Forms);

TYPED_TEST(Dlpack, DescribesAProducersMemory) {
  Produced<TypeParam> p;
  p.strides = {1, 8, 2};
  p.dl().byte_offset = 8;
  lamina_tensor t = Sized();
  ASSERT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(t.size, sizeof(t));
  EXPECT_STREQ(t.name, "x");
  EXPECT_EQ(t.data, &p.values[2]);
  EXPECT_EQ(t.dtype, LAMINA_F32);
  EXPECT_EQ(t.device, LAMINA_DEVICE_CPU);
  EXPECT_EQ(std::vector<int64_t>(t.shape, t.shape + t.ndim), p.shape);
  EXPECT_EQ(std::vector<int64_t>(t.strides, t.strides + t.ndim), p.strides);
  EXPECT_EQ(t.read_only, 0);

  p.dl().strides = nullptr;  // dense
  ASSERT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(std::vector<int64_t>(t.strides, t.strides + t.ndim), std::vector<int64_t>(3));
  p.dl().ndim = 0;  // a number
  p.dl().shape = nullptr;
  ASSERT_EQ(From("position", &p.managed, &t), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(t.ndim, 0);
}

TYPED_TEST(Dlpack, KnowsEveryTypeAndDevice) {
  Produced<TypeParam> p;
  lamina_tensor t = Sized();
  const std::pair<DLDataType, int32_t> types[] = {{{kDLFloat, 32, 1}, LAMINA_F32}, {{kDLBfloat, 16, 1}, LAMINA_BF16},
                                                  {{kDLFloat, 16, 1}, LAMINA_F16}, {{kDLBool, 8, 1}, LAMINA_BOOL},
                                                  {{kDLUInt, 8, 1}, LAMINA_U8},    {{kDLInt, 32, 1}, LAMINA_I32},
                                                  {{kDLInt, 64, 1}, LAMINA_I64}};
  for (const auto& [type, dtype] : types) {
    p.dl().dtype = type;
    ASSERT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
    EXPECT_EQ(t.dtype, dtype);
    TypeParam* out = nullptr;
    ASSERT_EQ(To(&t, 0, nullptr, nullptr, &out), LAMINA_OK) << lamina_last_error();
    EXPECT_EQ(out->dl_tensor.dtype.code, type.code);
    EXPECT_EQ(out->dl_tensor.dtype.bits, type.bits);
    EXPECT_EQ(out->dl_tensor.dtype.lanes, 1);
    out->deleter(out);
  }
  const std::pair<DLDeviceType, int32_t> devices[] = {{kDLCPU, LAMINA_DEVICE_CPU},
                                                      {kDLCUDAHost, LAMINA_DEVICE_CPU},
                                                      {kDLCUDA, LAMINA_DEVICE_CUDA},
                                                      {kDLCUDAManaged, LAMINA_DEVICE_CUDA}};
  for (const auto& [type, device] : devices) {
    p.dl().device.device_type = type;
    ASSERT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
    EXPECT_EQ(t.device, device);
  }
}

TYPED_TEST(Dlpack, RefusesWhatItCannotDescribe) {
  const auto refused = [](const char* sentence, const auto& spoil) {
    Produced<TypeParam> p;
    spoil(p);
    lamina_tensor t = Sized(), before = t;
    EXPECT_EQ(From("x", &p.managed, &t), LAMINA_INVALID_ARGUMENT) << sentence;
    EXPECT_NE(std::string(lamina_last_error()).find(sentence), std::string::npos) << lamina_last_error();
    EXPECT_EQ(std::memcmp(&t, &before, sizeof(t)), 0) << "left alone";
  };
  refused("tensor x: device must be the CPU or CUDA, got DLPack's device type 10",
          [](auto& p) { p.dl().device.device_type = kDLROCM; });
  refused("got DLPack's code 2 of 64 bits in 1 lanes", [](auto& p) { p.dl().dtype.bits = 64; });
  refused("in 4 lanes", [](auto& p) { p.dl().dtype.lanes = 4; });
  refused("at most 6 dimensions, got 7", [](auto& p) { p.dl().ndim = 7; });
  refused("at most 6 dimensions, got -1", [](auto& p) { p.dl().ndim = -1; });
  refused("shape must not be null", [](auto& p) { p.dl().shape = nullptr; });
  refused("shape must not be negative, got -3", [](auto& p) { p.shape[1] = -3; });
  refused("got -1 in dimension 2", [](auto& p) { p.strides[2] = -1; });
  refused("strides must be positive and keep elements apart, got 0 in dimension 1", [](auto& p) { p.strides[1] = 0; });
  refused("got 0 in dimension", [](auto& p) { p.strides = {0, 0, 0}; });     // expanded, not dense
  refused("got 3 in dimension 1", [](auto& p) { p.strides = {12, 3, 1}; });  // rows overlap by one
  refused("elements that memory can hold", [](auto& p) {
    p.strides[0] = INT64_MAX;
    p.shape[0] = 3;
  });
}

TYPED_TEST(Dlpack, StridesMatterOnlyWhereThereIsASecondElement) {
  Produced<TypeParam> p;
  p.shape = {1, 3, 4};
  p.strides = {0, 4, 1};
  lamina_tensor t = Sized();
  EXPECT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
  p.shape = {2, 0, 4};
  p.strides = {0, -1, 0};
  EXPECT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
}

TYPED_TEST(Dlpack, NullsAndSizesAreRefused) {
  Produced<TypeParam> p;
  lamina_tensor t = Sized();
  EXPECT_EQ(From(nullptr, &p.managed, &t), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(From("x", static_cast<TypeParam*>(nullptr), &t), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(From("x", &p.managed, nullptr), LAMINA_INVALID_ARGUMENT);
  t.size = 8;
  EXPECT_EQ(From("x", &p.managed, &t), LAMINA_INVALID_ARGUMENT);
  TypeParam* out = &p.managed;
  EXPECT_EQ(To(&t, 0, nullptr, nullptr, &out), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(To(nullptr, 0, nullptr, nullptr, &out), LAMINA_INVALID_ARGUMENT);
  t = Sized();
  EXPECT_EQ(To(&t, 0, nullptr, nullptr, static_cast<TypeParam**>(nullptr)), LAMINA_INVALID_ARGUMENT);
  for (int32_t lamina_tensor::*field : {&lamina_tensor::dtype, &lamina_tensor::device, &lamina_tensor::ndim}) {
    lamina_tensor wrong = Sized();
    wrong.*field = 9;
    EXPECT_EQ(To(&wrong, 0, nullptr, nullptr, &out), LAMINA_INVALID_ARGUMENT);
  }
}

TYPED_TEST(Dlpack, HandsMemoryOutUntilItIsDeleted) {
  std::vector<float> values(24);
  lamina_tensor t = Sized();
  t.data = values.data();
  t.device = LAMINA_DEVICE_CUDA;
  t.ndim = 2;
  t.shape[0] = 4, t.shape[1] = 5;
  int released = 0;
  TypeParam* out = nullptr;
  ASSERT_EQ(To(
                &t, 3, [](void* arg) { ++*static_cast<int*>(arg); }, &released, &out),
            LAMINA_OK);
  t = Sized();  // what went out has a shape of its own
  const DLTensor& dl = out->dl_tensor;
  EXPECT_EQ(dl.data, values.data());
  EXPECT_EQ(dl.device.device_type, kDLCUDA);
  EXPECT_EQ(dl.device.device_id, 3);
  EXPECT_EQ(std::vector<int64_t>(dl.shape, dl.shape + dl.ndim), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(std::vector<int64_t>(dl.strides, dl.strides + dl.ndim), (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(dl.byte_offset, 0u);
  EXPECT_EQ(released, 0);
  out->deleter(out);
  EXPECT_EQ(released, 1);
}

TEST(DlpackVersioned, OtherMajorVersionsAreRefusedAndLaterMinorOnesTaken) {
  Produced<DLManagedTensorVersioned> p;
  lamina_tensor t = Sized();
  p.managed.version = {1, 99};
  EXPECT_EQ(From("x", &p.managed, &t), LAMINA_OK) << lamina_last_error();
  p.managed.version = {2, 0};
  EXPECT_EQ(From("x", &p.managed, &t), LAMINA_INVALID_ARGUMENT);
  EXPECT_STREQ(lamina_last_error(), "tensor x: DLPack's version must be 1.x, got 2.0");
}

TEST(DlpackVersioned, ReadOnlyMemoryIsNoOutput) {
  Produced<DLManagedTensorVersioned> p;
  p.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  p.shape = {2, 2};
  p.dl().ndim = 2;
  p.strides = {2, 1};
  lamina_tensor t[3] = {Sized(), Sized(), Sized()};
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(From(i == 0 ? "w" : i == 1 ? "x" : "y", &p.managed, &t[i]), LAMINA_OK) << lamina_last_error();
  }
  EXPECT_EQ(t[0].read_only, 1);
  DLManagedTensor* older = nullptr;
  EXPECT_EQ(To(&t[0], 0, nullptr, nullptr, &older), LAMINA_INVALID_ARGUMENT);
  DLManagedTensorVersioned* out = nullptr;
  ASSERT_EQ(To(&t[0], 0, nullptr, nullptr, &out), LAMINA_OK);
  EXPECT_EQ(out->version.major, 1u);
  EXPECT_EQ(out->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  out->deleter(out);

  lamina_operator* op = nullptr;
  ASSERT_EQ(lamina_prepare("fully_connected m=2 ic=2 oc=2 bias=0", &t[0], 1, nullptr, &op), LAMINA_OK)
      << lamina_last_error();
  EXPECT_EQ(lamina_run(op, &t[1], 2, nullptr, 0), LAMINA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(lamina_last_error()).find("tensor y: memory must be writable, got a read-only tensor"),
            std::string::npos)
      << lamina_last_error();
  Produced<DLManagedTensor> y;  // dense, as the descriptor says
  y.shape = {2, 2};
  y.strides = {2, 1};
  y.dl().ndim = 2;
  p.values = {1, 2, 3, 4};
  p.dl().data = p.values.data();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(From(i == 0 ? "w" : "x", &p.managed, &t[i]), LAMINA_OK);
  ASSERT_EQ(From("y", &y.managed, &t[2]), LAMINA_OK);
  lamina_destroy(op);
  ASSERT_EQ(lamina_prepare("fully_connected m=2 ic=2 oc=2 bias=0", &t[0], 1, nullptr, &op), LAMINA_OK);
  ASSERT_EQ(lamina_run(op, &t[1], 2, nullptr, 0), LAMINA_OK) << lamina_last_error();
  lamina_destroy(op);
  EXPECT_EQ(std::vector<float>(y.values.begin(), y.values.begin() + 4), (std::vector<float>{5, 11, 11, 25}));
}

#else

TEST(Dlpack, SaysThatItWasNotBuilt) {
  lamina_tensor t = Sized();
  DLManagedTensor* managed = nullptr;
  EXPECT_EQ(lamina_to_dlpack(&t, 0, nullptr, nullptr, &managed), LAMINA_NOT_BUILT);
  EXPECT_EQ(lamina_from_dlpack("x", nullptr, &t), LAMINA_NOT_BUILT);
  EXPECT_STREQ(lamina_last_error(), "DLPack: this library was built without dlpack.h of version 1");
}

#endif

}  // namespace

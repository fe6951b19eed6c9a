// lamina._lamina: the C interface for Python. What users call stands in bindings/python/lamina, above this.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/python/array.h"
#include "bindings/python/operator.h"
#include "lamina/context.h"
#include "lamina/conv2d.h"
#include "lamina/version.h"

namespace lamina::python {
namespace {

using namespace nb::literals;  // NOLINT: "name"_a

// The exporting half of the array API's protocol.
nb::object ExportArray(const Array& a, const nb::object& stream, const nb::object& max_version,
                       const nb::object& dl_device, const nb::object& copy) {
  if (!stream.is_none() && !a.on_cuda()) throw nb::buffer_error("__dlpack__: memory of the CPU has no stream");
  if (!copy.is_none() && nb::cast<bool>(copy)) throw nb::buffer_error("__dlpack__: lamina.Array makes no copies");
  if (!dl_device.is_none() && !dl_device.equal(nb::find(a).attr("__dlpack_device__")())) {
    throw nb::buffer_error("__dlpack__: lamina.Array does not move to another device");
  }
  const bool versioned = !max_version.is_none() && nb::cast<int>(max_version[0]) >= 1;
  return a.ToDlpack(versioned);
}

// (name, dtype, role, optional, shape) of each weight, input and output.
using Slot = std::tuple<std::string, std::string, std::string, bool, std::vector<int64_t>>;

std::vector<Slot> TensorsOf(const std::string& desc) {
  constexpr size_t kMost = 32;
  std::array<lamina_tensor, kMost> tensors = {};
  tensors[0].size = sizeof(lamina_tensor);
  size_t count = 0;
  Check(lamina_tensors(desc.c_str(), tensors.data(), kMost, &count));
  std::vector<Slot> slots;
  for (size_t i = 0; i < count; ++i) {
    const lamina_tensor& t = tensors[i];
    const char* role = t.role == LAMINA_WEIGHT ? "weight" : t.role == LAMINA_INPUT ? "input" : "output";
    slots.emplace_back(t.name, DTypeName(t.dtype), role, t.optional != 0,
                       std::vector<int64_t>(t.shape, t.shape + t.ndim));
  }
  return slots;
}

// macs, transcendentals, params, weight_bytes, activation_bytes.
std::array<int64_t, 5> CostOf(const std::string& desc) {
  lamina_cost c = {};
  c.size = sizeof(c);
  Check(lamina_cost_of(desc.c_str(), &c));
  return {c.macs, c.transcendentals, c.params, c.weight_bytes, c.activation_bytes};
}

// Top, left, bottom and right by ONNX's rule, of the window and image that a conv2d's text says.
std::array<int64_t, 4> SamePadding(const std::string& desc, const std::string& padding) {
  if (padding != "same_upper" && padding != "same_lower") {
    Refuse("padding must be a number, (h, w), (top, left, bottom, right), \"same_upper\" or \"same_lower\", got \"" +
           padding + "\"");
  }
  auto d = ParseConv2d(desc);
  if (!d.ok()) Refuse(d.status().message());
  SetPadding(*d, padding == "same_upper" ? Padding::kSameUpper : Padding::kSameLower);
  return {d->pad_top, d->pad_left, d->pad_bottom, d->pad_right};
}

// (name, refusal or None, predicted_ns, accuracy) of each candidate.
using Candidate = std::tuple<std::string, std::optional<std::string>, double, std::string>;

std::vector<Candidate> CandidatesOf(const std::string& desc, const Context& context) {
  std::vector<Candidate> found;
  const auto visit = [](void* arg, const lamina_candidate* c) {
    static_cast<std::vector<Candidate>*>(arg)->emplace_back(
        c->name, c->refusal ? std::optional<std::string>(c->refusal) : std::nullopt, c->predicted_ns,
        ToString(static_cast<Accuracy>(c->accuracy)));
  };
  const lamina_context c = context.Get();
  Check(lamina_candidates(desc.c_str(), &c, visit, &found));
  return found;
}

nb::dict BuildDict() {
  const Build build = BuildInfo();
  const auto names = [](const std::vector<Isa>& isas) {
    nb::list list;
    for (Isa isa : isas) list.append(nb::str(ToString(isa).data()));
    return list;
  };
  nb::dict d;
  d["version"] = std::string(build.version);
  d["commit"] = std::string(build.commit);
  d["compiler"] = std::string(build.compiler);
  d["targets"] = names(build.isas);
  d["supported_targets"] = names(SupportedIsas());
  d["cuda"] = build.cuda;
  d["threads"] = AvailableThreads();
  return d;
}

}  // namespace
}  // namespace lamina::python

NB_MODULE(_lamina, m) {
  using namespace lamina::python;  // NOLINT: this is the module
  m.doc() = "The C interface of Lamina; use the package lamina.";
  DefineErrors(m);

  nb::class_<Array>(m, "Array",
                    "A tensor in memory: Lamina's own, or another library's that came by DLPack.\n\n"
                    "It goes by DLPack to any library that takes it, without a copy: numpy.from_dlpack(a),\n"
                    "torch.from_dlpack(a).")
      .def_prop_ro(
          "shape", [](const Array& a) { return nb::tuple(nb::cast(a.shape())); },
          nb::sig("def shape(self) -> tuple[int, ...]"))
      .def_prop_ro(
          "strides", [](const Array& a) { return nb::tuple(nb::cast(a.strides())); },
          nb::sig("def strides(self) -> tuple[int, ...]"), "In elements, slowest dimension first.")
      .def_prop_ro("dtype", &Array::dtype, "One of \"f32\", \"bf16\", \"f16\", \"bool\", \"u8\", \"i32\", \"i64\".")
      .def_prop_ro("read_only", &Array::read_only, "Whether no output may lie here.")
      .def("__dlpack__", &ExportArray, nb::kw_only(), "stream"_a = nb::none(), "max_version"_a = nb::none(),
           "dl_device"_a = nb::none(), "copy"_a = nb::none())
      .def("__dlpack_device__", [](const Array& a) { return std::make_tuple(a.on_cuda() ? 2 : 1, a.device_id()); })
      .def("__repr__", [](const Array& a) {
        return "lamina.Array(shape=" + std::string(nb::repr(nb::tuple(nb::cast(a.shape()))).c_str()) +
               ", dtype=" + a.dtype() + ")";
      });
  m.def("empty", &Array::Empty, "shape"_a, "dtype"_a = "f32",
        "A dense Array on the CPU, not initialised, at a multiple of 64 bytes.");
  m.def(
      "from_dlpack", [](nb::handle tensor, const char* name) { return Array::From(tensor, name); }, "tensor"_a.none(),
      "name"_a = "array",
      "The memory of anything with __dlpack__ as an Array; nothing is copied.\n\n"
      "Raises InvalidArgument, which says `name`, for negative or overlapping strides and for types that Lamina does\n"
      "not know.");

  nb::class_<Context>(m, "Context",
                      "Where and how operators are prepared.\n\n"
                      "backend: \"cpu\", \"reference\" (naive loops in double; slow) or \"cuda\".\n"
                      "isa: the SIMD target: \"best\", \"AVX3\", \"AVX2\", \"SSE4\", \"scalar\".\n"
                      "accuracy: \"default\", \"strict\" (the direct algorithm's bound: no Winograd) or \"reduced\".\n"
                      "threads: of a pool of this context's own; 0: one shared pool of all available threads.\n"
                      "spin: the pool's threads wait busily between calls.\n"
                      "implementation: this candidate or a refusal; \"\": the least predicted time.\n"
                      "machine: a calibration's text, as `lamina roof --save` writes it; \"\": the built-in figures.\n"
                      "stream: backend \"cuda\": the cudaStream_t to enqueue on. Calls do not wait for it: what writes "
                      "the tensors must\n"
                      "come before on that stream, and they must live until it is done.")
      .def(nb::init<const std::string&, const std::string&, const std::string&, size_t, bool, std::string, std::string,
                    uintptr_t>(),
           nb::kw_only(), "backend"_a = "cpu", "isa"_a = "best", "accuracy"_a = "default", "threads"_a = 0,
           "spin"_a = false, "implementation"_a = "", "machine"_a = "", "stream"_a = 0);

  nb::class_<Operator>(m, "Operator", "A prepared operator; see lamina.Conv2d and its kind.")
      .def(nb::init<const std::string&, const Tensors&, const Context&>(), "desc"_a, "weights"_a, "context"_a)
      .def("run", &Operator::Run, "tensors"_a)
      .def("prepare_keys", &Operator::PrepareKeys, "tensors"_a)
      .def("reshape", &Operator::Reshape, "desc"_a)
      .def("save_packed", &Operator::SavePacked, "path"_a)
      .def_static("load_packed", &Operator::LoadPacked, "path"_a, "context"_a)
      .def("explain", &Operator::Explain)
      .def_prop_ro("desc", &Operator::desc)
      .def_prop_ro("implementation", &Operator::implementation)
      .def_prop_ro("scratch_bytes", &Operator::scratch_bytes)
      .def_prop_ro("packed_bytes", &Operator::packed_bytes)
      .def_prop_ro("prepared_keys_bytes", &Operator::prepared_keys_bytes);

  m.def("tensors_of", &TensorsOf, "desc"_a);
  m.def("cost_of", &CostOf, "desc"_a);
  m.def("same_padding", &SamePadding, "desc"_a, "padding"_a);
  m.def("candidates_of", &CandidatesOf, "desc"_a, "context"_a);
  m.def("build_info", &BuildDict, nb::sig("def build_info() -> dict[str, typing.Any]"),
        "What this build has and what this machine offers, by name.");
}

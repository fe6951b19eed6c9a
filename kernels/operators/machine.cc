// Built-in machine figures and what is read off them.
#include "lamina/machine.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lamina {
namespace {

// One thread's figures of a CPU family: FMA peak per SIMD target in GFLOP/s, read bandwidths in GB/s, and how many
// threads it takes to use up the memory's bandwidth. Where a CPU was measured (`lamina roof`), the note says which.
struct Family {
  const char* name;
  double scalar, sse4, avx2, avx3;
  double l1, l2, l3, memory;
  double memory_threads;
};

constexpr Family kZen5 = {"AMD Zen 5", 8, 32, 125, 250, 450, 200, 80, 35, 4};
constexpr Family kZen4 = {"AMD Zen 4", 7, 28, 110, 115, 204, 111, 62, 25, 4};  // 2-core EPYC, 3.6 GHz
constexpr Family kZen3 = {"AMD Zen 2 or 3", 7, 28, 100, 0, 200, 100, 60, 22, 4};
constexpr Family kIntelServer = {"Intel AVX-512 server", 7.5, 30, 90, 170, 310, 140, 30, 16, 8};  // Emerald Rapids
constexpr Family kAvx512 = {"generic AVX-512", 7, 28, 95, 100, 200, 100, 40, 15, 4};
constexpr Family kAvx2 = {"generic AVX2", 7, 28, 90, 0, 180, 80, 30, 15, 2};
constexpr Family kSse4 = {"generic SSE4", 8, 24, 0, 0, 50, 30, 15, 8, 2};
constexpr Family kBaseline = {"generic", 6, 0, 0, 0, 25, 20, 10, 6, 2};

struct CpuName {
  std::string text;  // "Intel(R) Xeon(R) Processor"
  bool amd = false, intel = false;
  unsigned family = 0, model = 0;
};

CpuName ReadCpuName() {
  CpuName name;
#if defined(__x86_64__)
  unsigned eax, ebx, ecx, edx;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx)) {
    name.intel = ebx == signature_INTEL_ebx;
    name.amd = ebx == signature_AMD_ebx;
  }
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
    name.family = (eax >> 8) & 15;
    name.model = (eax >> 4) & 15;
    if (name.family == 15) name.family += (eax >> 20) & 255;
    if (name.family == 6 || name.family >= 15) name.model += ((eax >> 16) & 15) << 4;
  }
  unsigned brand[12] = {};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* b = brand + 4 * i;
    if (!__get_cpuid(0x80000002 + i, b, b + 1, b + 2, b + 3)) return name;
  }
  char text[sizeof(brand) + 1] = {};
  std::memcpy(text, brand, sizeof(brand));
  name.text = text;
  while (!name.text.empty() && name.text.back() == ' ') name.text.pop_back();
#endif
  return name;
}

const Family& FamilyOf(const CpuName& cpu, Isa widest) {
  if (widest == Isa::kAvx3) {
    if (cpu.amd) return cpu.family >= 0x1a ? kZen5 : kZen4;
    // Skylake-SP to Granite Rapids: two 512-bit FMA ports; client parts have one.
    constexpr unsigned kServers[] = {0x55, 0x6a, 0x6c, 0x8f, 0xcf, 0xad, 0xae};
    const bool server = std::find(std::begin(kServers), std::end(kServers), cpu.model) != std::end(kServers);
    return cpu.intel && cpu.family == 6 && server ? kIntelServer : kAvx512;
  }
  if (widest == Isa::kAvx2) return cpu.amd && cpu.family >= 0x17 ? kZen3 : kAvx2;
  return widest == Isa::kSse4 ? kSse4 : kBaseline;
}

double Interpolate(double one, double all, int most, int threads) {
  if (most <= 1 || threads <= 1) return one;
  const double t = static_cast<double>(std::min(threads, most) - 1) / (most - 1);
  return one + t * (all - one);
}

// The kernel's word first: glibc multiplies an AMD L3 by what it takes for the cores that share it (tenfold on a
// virtual Zen 4).
int64_t CacheBytes(int index, int name, int64_t otherwise) {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
  int64_t kib = 0;
  if (file >> kib && kib > 0) return kib << 10;  // "32768K"
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

Machine MakeBuiltIn() {
  const CpuName cpu = ReadCpuName();
  const Isa widest = SupportedIsas().front();
  const Family& f = FamilyOf(cpu, widest);
  Machine m;
  m.threads = static_cast<int>(AvailableThreads());
  m.cpu = std::string(f.name) + (cpu.text.empty() ? "" : " (" + cpu.text + ")");
  const double threads = m.threads;
  m.gflops_one = {0, f.scalar, f.sse4, f.avx2, f.avx3};
  m.gflops_one[0] = m.gflops_one[static_cast<size_t>(widest)];
  for (int i = 0; i < kIsaCount; ++i) m.gflops_all[i] = m.gflops_one[i] * threads;
  m.l1 = {CacheBytes(0, _SC_LEVEL1_DCACHE_SIZE, 32 << 10), f.l1, f.l1 * threads};
  m.l2 = {std::max(m.l1.bytes, CacheBytes(2, _SC_LEVEL2_CACHE_SIZE, 1 << 20)), f.l2, f.l2 * threads};
  m.l3 = {std::max(m.l2.bytes, CacheBytes(3, _SC_LEVEL3_CACHE_SIZE, m.l2.bytes)), f.l3, f.l3 * threads};
  m.memory = {int64_t{1} << 40, f.memory, f.memory * std::min(threads, f.memory_threads)};
  return m;
}

}  // namespace

double Machine::Gflops(Isa isa, int wanted) const {
  const auto i = static_cast<size_t>(isa);
  return Interpolate(gflops_one[i], gflops_all[i], threads, wanted);
}

double Machine::Gbps(int64_t bytes, int wanted) const {
  for (const Level* level : {&l1, &l2, &l3}) {
    if (bytes <= level->bytes) return Interpolate(level->gbps_one, level->gbps_all, threads, wanted);
  }
  return Interpolate(memory.gbps_one, memory.gbps_all, threads, wanted);
}

const Machine& BuiltInMachine() {
  static const Machine machine = MakeBuiltIn();
  return machine;
}

}  // namespace lamina

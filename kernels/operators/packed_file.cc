// The file of packed weights (packing.h):
//   lines of text     what it is, the format, library, cpu, implementation, problem, the parts' bytes, a hash; an empty
//   one zeros             up to a multiple of 64 the parts         each at a multiple of 64, zeros between
// The hash is of the text before it and of all that comes behind the first zeros.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include "kernels/operators/packing.h"
#include "kernels/operators/text.h"
#include "lamina/machine.h"
#include "lamina/version.h"

namespace lamina::packing {
namespace {

constexpr std::string_view kMagic = "lamina packed weights", kFormat = "1";
constexpr size_t kAlignment = 64, kMostHeader = size_t{1} << 20;

size_t Padded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// FNV-1a over words of 8 bytes in four lanes, which a CPU runs side by side; every step is a bijection of the lane, so
// that no single altered word goes unseen. It finds accidents, not forgers.
class Hash {
 public:
  // With zeros up to a multiple of 64 behind.
  void Add(const std::byte* data, size_t bytes) {
    const size_t whole = bytes / kAlignment * kAlignment;
    for (size_t at = 0; at < whole; at += kAlignment) AddBlock(data + at);
    if (whole == bytes) return;
    std::byte last[kAlignment] = {};
    std::memcpy(last, data + whole, bytes - whole);
    AddBlock(last);
  }
  void Add(std::string_view text) { Add(reinterpret_cast<const std::byte*>(text.data()), text.size()); }
  std::string Text() const {
    uint64_t all = kBasis;
    for (const uint64_t lane : lanes_) all = (all ^ lane) * kPrime;
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(all));
    return text;
  }

 private:
  static constexpr uint64_t kBasis = 0xcbf29ce484222325, kPrime = 0x100000001b3;
  void AddBlock(const std::byte* p) {
    for (size_t i = 0; i < kAlignment / sizeof(uint64_t); ++i) {
      uint64_t word;
      std::memcpy(&word, p + i * sizeof(word), sizeof(word));
      uint64_t& lane = lanes_[i % lanes_.size()];
      lane = (lane ^ word) * kPrime;
      lane ^= lane >> 32;  // or high bits would never reach low ones
    }
  }
  std::array<uint64_t, 4> lanes_ = {kBasis, kBasis + 1, kBasis + 2, kBasis + 3};
};

std::string Library() { return std::string(BuildInfo().version) + " " + std::string(BuildInfo().commit); }

// The family, of which the kernels' tiles depend: "AMD Zen 4 (AMD EPYC ...)" without the name behind it.
std::string Cpu() {
  const std::string& cpu = BuiltInMachine().cpu;
  return cpu.substr(0, cpu.find(" ("));
}

std::string HeaderOf(const std::string& implementation, const std::string& problem, const std::string& parts) {
  return std::string(kMagic) + "\nformat " + std::string(kFormat) + "\nlibrary " + Library() + "\ncpu " + Cpu() +
         "\nimplementation " + implementation + "\nproblem " + problem + "\nparts" + parts + "\n";
}

Status Failed(const std::string& path, const char* doing) {
  return InvalidArgument(path + ": cannot " + doing + ": " + std::strerror(errno));
}

bool WriteAll(std::FILE* file, const void* data, size_t bytes) { return std::fwrite(data, 1, bytes, file) == bytes; }
bool WriteZeros(std::FILE* file, size_t bytes) {
  static constexpr std::byte kZeros[kAlignment] = {};
  return WriteAll(file, kZeros, bytes);
}

// The rest of the line that begins with `key`, which `text` loses; nothing where it begins otherwise.
std::optional<std::string_view> Line(std::string_view& text, std::string_view key) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos || text.substr(0, key.size()) != key) return {};
  const std::string_view rest = text.substr(key.size(), end - key.size());
  text.remove_prefix(end + 1);
  return rest;
}

struct Mapping {
  ~Mapping() {
    if (data != MAP_FAILED) munmap(data, bytes);
  }
  void* data = MAP_FAILED;
  size_t bytes = 0;
};

Result<std::shared_ptr<Mapping>> Map(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return Failed(path, "read it");
  auto mapping = std::make_shared<Mapping>();
  struct stat facts;
  if (fstat(file, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size > 0) {
    mapping->bytes = static_cast<size_t>(facts.st_size);
    mapping->data = mmap(nullptr, mapping->bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapping->data == MAP_FAILED) {
      Status failed = Failed(path, "map it");
      close(file);
      return failed;
    }
  }
  close(file);
  if (mapping->data == MAP_FAILED) return InvalidArgument(path + ": is no file of packed weights");
  return mapping;
}

}  // namespace

Status Write(const std::string& path, const std::string& implementation, const std::string& problem,
             const Parts& parts) {
  std::string sizes;
  for (const auto& part : parts) sizes += " " + std::to_string(part.size());
  std::string header = HeaderOf(implementation, problem, sizes);
  Hash hash;
  hash.Add(header);
  for (const auto& part : parts) hash.Add(part.data(), part.size());
  header += "hash " + hash.Text() + "\n\n";
  const std::string unfinished = path + ".part";
  std::FILE* file = std::fopen(unfinished.c_str(), "wb");
  if (file == nullptr) return Failed(unfinished, "write it");
  bool written =
      WriteAll(file, header.data(), header.size()) && WriteZeros(file, Padded(header.size()) - header.size());
  for (const auto& part : parts) {
    written =
        written && WriteAll(file, part.data(), part.size()) && WriteZeros(file, Padded(part.size()) - part.size());
  }
  written = std::fclose(file) == 0 && written;
  if (written && std::rename(unfinished.c_str(), path.c_str()) == 0) return {};
  Status failed = Failed(path, "write it");
  std::remove(unfinished.c_str());
  return failed;
}

Result<File> Read(const std::string& path) {
  const auto mapping = Map(path);
  if (!mapping.ok()) return mapping.status();
  const std::string_view all(static_cast<const char*>((*mapping)->data), (*mapping)->bytes);
  const auto refuse = [&](const std::string& sentence) { return InvalidArgument(path + ": " + sentence); };
  const std::string first = std::string(kMagic) + "\n";
  if (all.substr(0, first.size()) != first) return refuse("is no file of packed weights");
  const size_t end = all.substr(0, kMostHeader).find("\n\n");
  if (end == std::string_view::npos) return refuse("is cut short or altered: its header has no end");
  std::string_view text = all.substr(first.size(), end + 1 - first.size());
  const auto format = Line(text, "format ");
  if (format && *format != kFormat) {
    return refuse("has format " + std::string(*format) + ", this library reads " + std::string(kFormat));
  }
  const auto library = Line(text, "library "), cpu = Line(text, "cpu "), implementation = Line(text, "implementation "),
             problem = Line(text, "problem "), sizes = Line(text, "parts");
  const auto header = static_cast<size_t>(text.data() - all.data());
  const auto hash = Line(text, "hash ");
  if (!format || !library || !cpu || !implementation || !problem || !sizes || !hash || !text.empty()) {
    return refuse("is altered: its header lacks a line");
  }
  File file{std::string(*implementation), std::string(*problem), {}, *mapping};
  size_t at = Padded(end + 2);
  for (const std::string_view word : text::Words(*sizes)) {
    size_t bytes = 0;
    const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), bytes);
    if (error != std::errc() || rest != word.data() + word.size()) return refuse("is altered: its parts have no sizes");
    if (at > all.size() || bytes > all.size() - at) {
      return refuse("is cut short: part " + std::to_string(file.parts.size() + 1) + " of " + std::to_string(bytes) +
                    " bytes ends behind its " + std::to_string(all.size()) + " bytes");
    }
    file.parts.emplace_back(reinterpret_cast<const std::byte*>(all.data()) + at, bytes);
    at += Padded(bytes);
  }
  // Before the hash: a file of another version is told as such.
  if (*library != Library()) {
    return refuse("was packed by lamina " + std::string(*library) + ", this is " + Library() + ": pack it again");
  }
  if (*cpu != Cpu()) {
    return refuse("was packed for " + std::string(*cpu) + ", this CPU is " + Cpu() + ": pack it again");
  }
  if (all.size() != at) {
    return refuse("is cut short or altered: it must have " + std::to_string(at) + " bytes, got " +
                  std::to_string(all.size()));
  }
  const size_t first_part = Padded(end + 2);
  Hash found;
  found.Add(all.substr(0, header));
  found.Add(all.substr(first_part));
  if (found.Text() != *hash ||
      all.substr(end + 2, first_part - end - 2).find_first_not_of('\0') != std::string_view::npos) {
    return refuse("is altered: its hash is another");
  }
  return file;
}

}  // namespace lamina::packing

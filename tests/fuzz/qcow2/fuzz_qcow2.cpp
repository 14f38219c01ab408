// The tables of a qcow2 file whose every byte may be wrong: no crash, no read outside the file's rules, and
// runs(), read() and is_hole() agree.
#include <cstdlib>

#include "common/image/formats.hpp"
#include "common/image/qcow2_layer.hpp"
#include "unit/image/crafted.hpp"

namespace {

namespace image = educloud::image;
constexpr std::uint64_t kCluster = 64 * 1024;

/// A file without a name with a good delta of 2 MiB, with data and zeros.
class Delta {
 public:
  Delta() {
    const auto path = "/tmp/fuzz_qcow2." + std::to_string(::getpid());
    const image::Qcow2Delta::Spec spec{2 << 20, {1, 2, 7, 31}, {3, 9}, {}, {}};
    const auto delta = image::Qcow2Delta::create(path, spec);
    if (!delta) std::abort();
    bytes_ = educloud::sys::read_file(path, 64 << 20).value();
    ::unlink(path.c_str());
    for (std::size_t at = delta->data_start(); at < bytes_.size(); ++at) bytes_[at] = 'd';
    fd_ = image::testing::in_memory(bytes_);
  }

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

  /// Patches of {24-bit place, byte}: most go to the header and the tables, since the rest is data.
  void spoil(std::string_view input) {
    for (std::size_t at = 0; at + 4 <= input.size() && at < 400; at += 4) {
      constexpr std::array<std::uint64_t, 3> kTables{0, 3 * kCluster, 4 * kCluster};
      const auto where = image::big_endian(input, at, 3);
      const auto place = where % 4 == 3 ? where / 4 % bytes_.size() : kTables[where % 4] + where / 4 % 300;
      put(place, input[at + 3]);
      spoilt_.push_back(place);
    }
  }
  void mend() {
    for (const auto place : spoilt_) put(place, bytes_[place]);
    spoilt_.clear();
  }

 private:
  void put(std::uint64_t place, char byte) const {
    if (!educloud::sys::pwrite_all(fd_.get(), {&byte, 1}, place)) std::abort();
  }

  std::string bytes_;
  educloud::sys::Fd fd_;
  std::vector<std::uint64_t> spoilt_;
};

void check(const image::LayeredDisk& disk) {
  const auto runs = disk.runs(2);
  std::uint64_t end = 0;
  if (runs) {
    for (const auto& run : *runs) {
      if (run.first < end || run.count == 0 || run.offset % kCluster != 0) std::abort();
      end = run.first + run.count;
    }
    if (end > (disk.disk_bytes() + kCluster - 1) / kCluster) std::abort();
  }
  std::string out(std::min<std::uint64_t>(disk.disk_bytes(), 70'000), 'x');
  for (const std::uint64_t at :
       {std::uint64_t{0}, (disk.disk_bytes() - out.size()) / 2, disk.disk_bytes() - out.size()}) {
    const auto ok = disk.read(at, out);
    if (!ok && ok.error().message.size() > 1000) std::abort();
    if (disk.is_hole(at, out.size()) && (!ok || out.find_first_not_of('\0') != std::string::npos))
      std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Delta delta;
  delta.spoil({reinterpret_cast<const char*>(data), size});
  const image::LayeredDisk::Layer qcow2{delta.path(), "qcow2"}, raw{delta.path(), "raw"};
  if (const auto disk = image::LayeredDisk::open({qcow2})) check(*disk);
  if (const auto disk = image::LayeredDisk::open({qcow2, qcow2, raw})) check(*disk);
  delta.mend();
  return 0;
}

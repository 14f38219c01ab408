#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/sys/file.hpp"

namespace educloud::image {

/// How one layer of a disk answers for one 64 KiB cluster.
enum class ClusterState {
  absent,  ///< ask the layer below; below the last: zeros
  zero,    ///< reads as zeros
  data,    ///< at `offset` of the file
};
struct ClusterRun {
  std::uint64_t first = 0;  ///< cluster number
  std::uint64_t count = 0;
  ClusterState state = ClusterState::absent;
  std::uint64_t offset = 0;  ///< of the first cluster, if data; the run is contiguous in the file
  std::size_t layer = 0;     ///< which one says so; its file holds the data
  bool operator==(const ClusterRun&) const = default;
};

/// A disk as a stack of files: qcow2 with 64 KiB clusters (made by us or by qemu-img on our order) over a raw
/// file or nothing. Reads the tables itself, checked and with bounded memory (2 MiB a layer); refuses
/// compressed clusters, internal snapshots, extended L2, encryption, data files, other cluster sizes. The
/// files must not be written to meanwhile (a VM that is shut off; published versions). All const members may
/// be called from several threads.
class LayeredDisk {
 public:
  static constexpr std::size_t kMaxLayers = 16;
  struct Layer {
    std::filesystem::path file;
    std::string format;  ///< "qcow2" or "raw"; raw only as the last
  };
  /// Top first. Backing names inside the qcow2 files are not followed. Errors: not_found, corrupt,
  /// invalid_argument (also what is named above as refused; of clusters it shows only when their table is
  /// read).
  static Result<LayeredDisk> open(std::vector<Layer> layers);
  LayeredDisk(LayeredDisk&&) noexcept;
  LayeredDisk& operator=(LayeredDisk&&) noexcept;
  ~LayeredDisk();

  std::uint64_t disk_bytes() const;  ///< of the top layer
  /// What the top `layers` layers say, absent runs left out, rising. For a raw layer: SEEK_DATA, widened to
  /// clusters. A run belongs to one layer. What lies beyond the end of a layer reads as zeros, whatever the
  /// layers below hold: `zero` if there are any, else absent. Of a cluster in which a lower layer ends only
  /// read() knows where the zeros begin.
  /// Errors: corrupt, invalid_argument, internal; of `runs`: exhausted past 4 million runs.
  Result<std::vector<ClusterRun>> runs(std::size_t layers) const;
  /// The same one by one, for disks of any size; ends with the first error of `on_run`.
  Result<> for_each_run(std::size_t layers, const std::function<Result<>(const ClusterRun&)>& on_run) const;
  /// Reads disk bytes [offset, offset + out.size()) through all layers; zeros beyond a shorter lower layer's
  /// end. Errors: invalid_argument (beyond the disk; refused clusters), corrupt, internal.
  Result<> read(std::uint64_t offset, std::span<char> out) const;
  /// True if [offset, offset+length) surely reads as zeros without touching data. Beyond the disk: true.
  bool is_hole(std::uint64_t offset, std::uint64_t length) const;

 private:
  struct Impl;
  explicit LayeredDisk(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// A qcow2 file (v3, 64 KiB clusters, 16-bit refcounts) on top of `backing`, whose allocated clusters are all
/// known before the first byte of data arrives: `create` writes every table, the caller then fills clusters
/// in any order with pwrite. A cluster that is not written reads as zeros, also behind a short last chunk.
class Qcow2Delta {
 public:
  struct Spec {
    /// 1 byte..16 TiB. The guest sees it rounded up to 512 bytes, as QEMU does for raw files; what is added
    /// reads as zeros.
    std::uint64_t disk_bytes = 0;
    std::vector<std::uint64_t> data;  ///< cluster numbers that get data, rising
    /// Clusters that read as zeros although the backing file has data, rising, none of them in `data`.
    std::vector<std::uint64_t> zeros;
    /// Name as written into the header, at most 1023 bytes; relative to the delta's folder, or absolute.
    /// Empty: the file stands on nothing.
    std::string backing_file;
    std::string backing_format;  ///< "raw" or "qcow2"
  };
  /// Makes `file` (must not exist), sparse, with its final length. Not synced. The file passes
  /// inspect_overlay() with that backing. Nothing is left of it after an error.
  /// Errors: invalid_argument (what is wrong in `spec`), conflict (`file` exists), exhausted, internal.
  static Result<Qcow2Delta> create(const std::filesystem::path& file, const Spec& spec);
  /// Where the `i`-th of Spec::data lies: data_start() + i * 64 KiB.
  std::uint64_t data_start() const { return data_start_; }
  /// The same for a file made before with the same spec, after a restart.
  static std::uint64_t data_start_of(const Spec& spec);

 private:
  explicit Qcow2Delta(std::uint64_t data_start) : data_start_(data_start) {}

  std::uint64_t data_start_ = 0;
};

}  // namespace educloud::image

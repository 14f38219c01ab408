#include "common/image/qcow2_layer.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/image/qcow2_tables.hpp"

namespace educloud::image {
namespace {

constexpr std::size_t kMaxRuns = 4'000'000;

/// Where the bytes of one cluster are.
struct Place {
  std::size_t layer = 0;
  Entry entry;  ///< absent: no layer says anything
  /// Offset in the disk from which on all is zero, because a layer on the way down has ended.
  std::uint64_t limit = std::numeric_limits<std::uint64_t>::max();
};

/// Bytes of the disk that lie together in one layer.
struct Stretch {
  Place place;  ///< of the first cluster
  std::uint64_t length = 0;
};

/// True if `b` goes on where `a`, `count` clusters long, ends.
bool continues(const Place& a, std::uint64_t count, const Place& b) {
  if (a.entry.is_absent() != b.entry.is_absent() || a.entry.is_data() != b.entry.is_data()) return false;
  if (a.layer != b.layer || a.limit != b.limit) return false;
  return !a.entry.is_data() || b.entry.offset() == a.entry.offset() + count * kClusterBytes;
}

/// Looks clusters up one after the other; keeps the tables it used last, so that most take no lock.
class Cursor {
 public:
  explicit Cursor(const std::vector<std::unique_ptr<LayerFile>>& layers) : layers_(layers) {}

  /// `raw_is_data`: a raw layer is not asked where it has holes.
  Result<Place> find(std::uint64_t cluster, std::size_t depth, bool raw_is_data) {
    Place place;
    for (std::size_t i = 0; i < depth; ++i) {
      const auto& layer = *layers_[i];
      if (cluster >= layer.clusters()) {
        place.layer = i;
        if (i + 1 < layers_.size()) place.entry = Entry::zero();
        return place;
      }
      place.limit = std::min(place.limit, layer.disk_bytes());
      auto entry = lookup(i, cluster, raw_is_data);
      if (!entry) return fail(entry.error());
      if (entry->is_absent()) continue;
      place.layer = i;
      place.entry = *entry;
      return place;
    }
    return place;
  }

  /// From `offset` on, at most to `end`, through all layers.
  Result<Stretch> stretch(std::uint64_t offset, std::uint64_t end) {
    const auto first = offset / kClusterBytes;
    const auto place = find(first, layers_.size(), true);
    if (!place) return fail(place.error());
    auto stop = first + 1;
    for (; stop * kClusterBytes < end; ++stop) {
      const auto next = find(stop, layers_.size(), true);
      if (!next) return fail(next.error());
      if (!continues(*place, stop - first, *next)) break;
    }
    return Stretch{*place, std::min(stop * kClusterBytes, end) - offset};
  }

 private:
  struct Held {
    std::uint64_t index = std::numeric_limits<std::uint64_t>::max();
    std::shared_ptr<const Table> table;
  };

  Result<Entry> lookup(std::size_t i, std::uint64_t cluster, bool raw_is_data) {
    if (raw_is_data && layers_[i]->is_raw()) return Entry::data(cluster * kClusterBytes);
    auto& held = held_[i];
    if (const auto index = cluster / kTableClusters; held.index != index) {
      auto table = layers_[i]->table(index);
      if (!table) return fail(table.error());
      held = Held{index, std::move(*table)};
    }
    return held.table == nullptr ? Entry() : (*held.table)[cluster % kTableClusters];
  }

  const std::vector<std::unique_ptr<LayerFile>>& layers_;
  std::array<Held, LayeredDisk::kMaxLayers> held_;
};

ClusterRun run_of(std::uint64_t first, const Place& place) {
  ClusterRun run;
  run.first = first;
  run.count = 1;
  run.state = place.entry.is_data() ? ClusterState::data : ClusterState::zero;
  run.offset = place.entry.is_data() ? place.entry.offset() : 0;
  run.layer = place.layer;
  return run;
}

bool extends(const ClusterRun& run, const ClusterRun& next) {
  return run.count != 0 && run.first + run.count == next.first && run.state == next.state &&
         run.layer == next.layer &&
         (run.state == ClusterState::zero || next.offset == run.offset + run.count * kClusterBytes);
}

}  // namespace

struct LayeredDisk::Impl {
  std::vector<std::unique_ptr<LayerFile>> layers;

  /// True if the top `depth` layers say nothing about table `index` (of no raw layer: that is asked later).
  Result<bool> is_span_absent(std::uint64_t index, std::size_t depth) const {
    for (std::size_t i = 0; i < depth; ++i) {
      // The end of a layer is decided cluster by cluster.
      if ((index + 1) * kTableClusters > layers[i]->clusters() && i + 1 < layers.size() && i != 0)
        return false;
      auto table = layers[i]->table(index);
      if (!table) return fail(table.error());
      if (*table != nullptr) return false;
    }
    return true;
  }
};

LayeredDisk::LayeredDisk(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LayeredDisk::LayeredDisk(LayeredDisk&&) noexcept = default;
LayeredDisk& LayeredDisk::operator=(LayeredDisk&&) noexcept = default;
LayeredDisk::~LayeredDisk() = default;

Result<LayeredDisk> LayeredDisk::open(std::vector<Layer> layers) {
  if (layers.empty() || layers.size() > kMaxLayers) {
    return fail(ErrorCode::invalid_argument, "a disk has 1.." + std::to_string(kMaxLayers) + " layers, not " +
                                                 std::to_string(layers.size()));
  }
  auto impl = std::make_unique<Impl>();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto file = LayerFile::open(layers[i].file, layers[i].format);
    if (!file) return fail(file.error());
    if ((*file)->is_raw() && i + 1 != layers.size()) {
      return fail(ErrorCode::invalid_argument,
                  "disk layer " + layers[i].file.string() + ": a raw file can only be the lowest layer");
    }
    impl->layers.push_back(std::move(*file));
  }
  return LayeredDisk(std::move(impl));
}

std::uint64_t LayeredDisk::disk_bytes() const {
  return impl_->layers.front()->disk_bytes();
}

Result<std::vector<ClusterRun>> LayeredDisk::runs(std::size_t layers) const {
  std::vector<ClusterRun> all;
  const auto keep = [&](const ClusterRun& run) -> Result<> {
    if (all.size() == kMaxRuns) {
      return fail(ErrorCode::exhausted, "the disk is in more than " + std::to_string(kMaxRuns) + " pieces");
    }
    all.push_back(run);
    return {};
  };
  if (auto ok = for_each_run(layers, keep); !ok) return fail(ok.error());
  return all;
}

Result<> LayeredDisk::for_each_run(std::size_t layers,
                                   const std::function<Result<>(const ClusterRun&)>& on_run) const {
  const auto depth = std::min(layers, impl_->layers.size());
  const auto clusters = impl_->layers.front()->clusters();
  Cursor cursor(impl_->layers);
  ClusterRun run;
  for (std::uint64_t cluster = 0; cluster < clusters; ++cluster) {
    if (cluster % kTableClusters == 0) {
      const auto absent = impl_->is_span_absent(cluster / kTableClusters, depth);
      if (!absent) return fail(absent.error());
      if (*absent) {
        cluster += kTableClusters - 1;
        continue;
      }
    }
    const auto place = cursor.find(cluster, depth, false);
    if (!place) return fail(place.error());
    if (place->entry.is_absent()) continue;
    const auto next = run_of(cluster, *place);
    if (extends(run, next)) {
      ++run.count;
      continue;
    }
    if (run.count != 0) {
      if (auto ok = on_run(run); !ok) return ok;
    }
    run = next;
  }
  return run.count == 0 ? Result<>() : on_run(run);
}

Result<> LayeredDisk::read(std::uint64_t offset, std::span<char> out) const {
  if (offset > disk_bytes() || out.size() > disk_bytes() - offset) {
    return fail(ErrorCode::invalid_argument, "bytes " + std::to_string(offset) + " to " +
                                                 std::to_string(offset + out.size()) +
                                                 " are beyond the disk's " + std::to_string(disk_bytes()));
  }
  Cursor cursor(impl_->layers);
  while (!out.empty()) {
    const auto stretch = cursor.stretch(offset, offset + out.size());
    if (!stretch) return fail(stretch.error());
    const auto& place = stretch->place;
    const auto piece = out.first(stretch->length);
    std::size_t data = 0;
    if (place.entry.is_data() && place.limit > offset) {
      data = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), place.limit - offset));
      const auto at = place.entry.offset() + offset % kClusterBytes;
      if (auto ok = impl_->layers[place.layer]->read(at, piece.data(), data); !ok) return ok;
    }
    if (data < piece.size()) std::memset(piece.data() + data, 0, piece.size() - data);
    offset += piece.size();
    out = out.subspan(piece.size());
  }
  return {};
}

bool LayeredDisk::is_hole(std::uint64_t offset, std::uint64_t length) const {
  if (offset >= disk_bytes()) return true;
  const auto end = offset + std::min(length, disk_bytes() - offset);
  Cursor cursor(impl_->layers);
  while (offset < end) {
    const auto stretch = cursor.stretch(offset, end);
    if (!stretch) return false;  // read() will say why
    if (stretch->place.entry.is_data()) {
      const auto& layer = *impl_->layers[stretch->place.layer];
      if (!layer.is_raw() || !layer.is_raw_hole(offset, stretch->length)) return false;
    }
    offset += stretch->length;
  }
  return true;
}

}  // namespace educloud::image

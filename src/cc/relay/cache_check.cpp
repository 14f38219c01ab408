#include "cc/relay/cache_check.hpp"

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"

namespace educloud::cc {
namespace {

constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
constexpr std::size_t kMarkerBytes = 100;

}  // namespace

void check_after_reboot(chunk::ChunkStore& store, const std::filesystem::path& marker, std::stop_token stop) {
  auto boot = sys::read_file(kBootId, kMarkerBytes);
  if (!boot) return;
  auto seen = sys::read_file(marker, kMarkerBytes);
  if (seen && *seen == *boot) return;
  std::uint64_t damaged = 0;
  auto checked = store.verify(
      [&](const chunk::Damage& damage) {
        ++damaged;
        obs::warn("cache.damaged",
                  {{"chunk", damage.id.hex()}, {"pack", damage.pack}, {"error", damage.what}});
        (void)store.forget(damage.id);
      },
      [](std::uint64_t, std::uint64_t) {}, stop);
  if (damaged > 0) {
    obs::metrics().count("educloud_cc_damaged_chunks_total",
                         "Chunks of the cache found damaged and forgotten", static_cast<double>(damaged));
  }
  if (stop.stop_requested()) return;
  if (!checked) return obs::warn("cache.check_failed", {{"error", checked.error().message}});
  obs::info("cache.checked", {{"chunks", *checked}, {"damaged", damaged}});
  if (auto ok = sys::write_file_atomically(marker, *boot); !ok) {
    obs::warn("cache.marker_not_written", {{"error", ok.error().message}});
  }
}

}  // namespace educloud::cc

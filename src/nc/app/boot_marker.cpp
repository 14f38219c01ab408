#include "nc/app/boot_marker.hpp"

#include <charconv>

#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
constexpr std::size_t kMarkerBytes = 128;

struct Marker {
  std::string boot_id;
  std::int64_t since_ms = 0;
};

/// "<milliseconds> <boot id>"; nothing where there is none, or none that can be read.
std::optional<Marker> read_marker(const std::filesystem::path& file) {
  const auto text = sys::read_file(file, kMarkerBytes);
  if (!text) return std::nullopt;
  Marker marker;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), marker.since_ms);
  if (error != std::errc{} || marker.since_ms <= 0 || end == text->data() + text->size() || *end != ' ')
    return std::nullopt;
  marker.boot_id = std::string(end + 1, text->data() + text->size());
  return marker;
}

}  // namespace

Result<std::int64_t> note_boot(const std::filesystem::path& state_dir, std::string_view boot_id,
                               std::int64_t now_ms) {
  const auto file = state_dir / "boot";
  const auto known = read_marker(file);
  if (known && known->boot_id == boot_id) return known->since_ms;
  const std::int64_t since = std::max(now_ms, known ? known->since_ms + 1 : 1);
  if (auto ok = sys::write_file_atomically(file, std::to_string(since) + " " + std::string(boot_id)); !ok)
    return fail(ok.error());
  return since;
}

Result<std::string> boot_id() {
  auto text = sys::read_file(kBootId, kMarkerBytes);
  if (!text) return text;
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  return text;
}

}  // namespace educloud::nc

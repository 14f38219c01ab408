#include "nc/app/lease_file.hpp"

#include <charconv>
#include <fstream>

#include "common/sys/file.hpp"

namespace educloud::nc {
namespace fs = std::filesystem;
namespace {

fs::path exclusive_folder(const fs::path& state_dir) {
  return state_dir / "exclusive";
}

}  // namespace

Result<> write_lease_file(const fs::path& state_dir, std::int64_t boot_ms) {
  const auto part = state_dir / "lease.part";
  std::ofstream out(part, std::ios::trunc);
  out << boot_ms << "\n";
  out.close();
  if (!out) return fail(ErrorCode::internal, "write " + part.string());
  std::error_code error;
  fs::rename(part, state_dir / "lease", error);
  if (error) return fail(errno_error("rename " + part.string(), error.value()));
  return {};
}

std::optional<std::int64_t> read_lease_file(const fs::path& state_dir) {
  const auto text = sys::read_file(state_dir / "lease", 64);
  if (!text) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || value < 0) return std::nullopt;
  return value;
}

Result<> note_exclusive(const fs::path& state_dir, const InstanceId& insid) {
  if (auto ok = sys::make_directories(exclusive_folder(state_dir), 0700); !ok) return ok;
  return sys::write_file_atomically(exclusive_folder(state_dir) / insid.str(), "", 0600);
}

void strike_exclusive(const fs::path& state_dir, const InstanceId& insid) {
  std::error_code ignored;
  fs::remove(exclusive_folder(state_dir) / insid.str(), ignored);
}

std::vector<InstanceId> read_exclusive(const fs::path& state_dir) {
  std::vector<InstanceId> out;
  std::error_code error;
  for (fs::directory_iterator entry(exclusive_folder(state_dir), error), end; !error && entry != end;
       entry.increment(error)) {
    if (auto insid = InstanceId::parse(entry->path().filename().string())) out.push_back(std::move(*insid));
  }
  return out;
}

}  // namespace educloud::nc

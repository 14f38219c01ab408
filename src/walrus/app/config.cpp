#include "walrus/app/config.hpp"

#include <pwd.h>
#include <unistd.h>

#include "common/base/limits.hpp"

namespace educloud::walrus {
namespace {

bool user_exists(const char* name) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 * 1024);
  return ::getpwnam_r(name, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
}

}  // namespace

Result<WalrusConfig> load_config(const std::filesystem::path& file) {
  auto reader = config::Reader::open(file);
  if (!reader) return fail(reader.error());
  WalrusConfig out;
  out.common.state_dir = "/var/lib/educloud/walrus";
  out.common.port = 8001;
  out.common.broker.user = "walrus";
  config::read_common(*reader, out.common);
  reader->require("data_key_file");
  reader->path("data_key_file", out.data_key_file);
  reader->text("convert_user", out.convert_user, 0, 32);
  constexpr auto kMost = static_cast<std::int64_t>(limits::kImageBytes);
  reader->integer64("max_image_bytes", out.max_image_bytes, 1 << 20, kMost);
  reader->integer64("max_virtual_bytes", out.max_virtual_bytes, 1 << 20, kMost);
  reader->integer64("reserve_bytes", out.reserve_bytes, 0, kMost);
  reader->integer("max_uploads", out.max_uploads, 1, 1024);
  reader->integer("workers", out.workers, 1, 16);
  reader->integer("sweep_interval_s", out.sweep_interval_s, 1, 30 * 86400);
  reader->integer("sweep_grace_s", out.sweep_grace_s, 1, 30 * 86400);
  reader->integer("max_readers", out.max_readers, 1, 1024);
  reader->path("database_template", out.database_template);
  reader->integer("upload_expiry_hours", out.upload_expiry_hours, 1, 24 * 30);
  reader->text("files_user", out.files_user, 1, 32);
  if (auto ok = reader->finish(); !ok) return fail(ok.error());
  return out;
}

std::string choose_convert_user(const std::string& configured) {
  if (::geteuid() != 0) return {};
  if (!configured.empty()) return configured;
  return user_exists("educloud-convert") ? "educloud-convert" : "nobody";
}

}  // namespace educloud::walrus

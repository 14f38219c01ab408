#include "cc/app/config.hpp"

#include "common/http/client.hpp"

namespace educloud::cc {

Result<Config> load_config(const std::filesystem::path& path) {
  auto reader = config::Reader::open(path);
  if (!reader) return fail(reader.error());
  Config out;
  out.common.port = 8002;
  out.common.state_dir = "/var/lib/educloud/cc";
  config::read_common(*reader, out.common);
  reader->require("walrus_url");
  reader->text("walrus_url", out.walrus_url, 1, 255);
  reader->text("walrus_ca_file", out.walrus_ca_file);
  reader->require("data_key_file");
  reader->path("data_key_file", out.data_key_file);
  reader->integer64("cache_max_bytes", out.cache_max_bytes, 1 << 20, 1ll << 50);
  reader->integer64("max_upload_bytes", out.max_upload_bytes, 1 << 20, 1ll << 50);
  if (auto ok = reader->finish(); !ok) return fail(ok.error());
  if (auto url = http::Url::parse(out.walrus_url); !url)
    return fail(url.error(), path.string() + ": walrus_url");
  return out;
}

}  // namespace educloud::cc

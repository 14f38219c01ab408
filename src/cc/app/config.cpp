#include "cc/app/config.hpp"

#include "common/http/client.hpp"

namespace educloud::cc {
namespace {

constexpr std::size_t kMaxWindows = 48;
constexpr std::int64_t kMaxMbit = 100'000;

void read_time(config::Reader& reader, const char* key, int& minute) {
  reader.require(key);
  std::string text = "00:00";
  reader.text(key, text);
  if (auto time = parse_time_of_day(text)) {
    minute = *time;
  } else {
    reader.refuse(key, "is wrong: " + time.error().message);
  }
}

void read_uplink(config::Reader& reader, std::vector<UplinkWindow>& out) {
  reader.tables(
      "limits.uplink",
      [&](config::Reader& one) {
        UplinkWindow window;
        read_time(one, "from", window.from_minute);
        read_time(one, "to", window.to_minute);
        one.require("mbit_per_s");
        one.integer64("mbit_per_s", window.mbit_per_s, 1, kMaxMbit);
        out.push_back(window);
      },
      kMaxWindows);
  if (auto ok = check_windows(out); !ok) reader.refuse("limits.uplink", "is wrong: " + ok.error().message);
}

}  // namespace

Result<Config> load_config(const std::filesystem::path& path) {
  auto reader = config::Reader::open(path);
  if (!reader) return fail(reader.error());
  Config out;
  out.common.port = 8002;
  out.common.state_dir = "/var/lib/educloud/cc";
  config::read_common(*reader, out.common);
  out.cluster_broker = out.common.broker;
  config::read_broker(*reader, "cluster_broker", out.cluster_broker);
  reader->require("walrus_url");
  reader->text("walrus_url", out.walrus_url, 1, 255);
  reader->text("walrus_ca_file", out.walrus_ca_file);
  reader->require("data_key_file");
  reader->path("data_key_file", out.data_key_file);
  reader->integer64("cache_bytes", out.cache_bytes, 256ll << 20, 1ll << 50);
  reader->boolean("peers.enabled", out.peers);
  reader->integer("limits.connections", out.connections, 1, 16);
  reader->integer("limits.max_node_transfers", out.max_node_transfers, 1, 512);
  reader->integer("disks.iscsi_port", out.iscsi_port, 1, 65535);
  reader->integer("disks.nbd_port", out.nbd_port, 1024, 64'000);
  reader->integer("disks.nbd_ports", out.nbd_ports, 1, 1000);
  reader->text("folders.walrus_host", out.folders_walrus_host, 0, 255);
  reader->integer("folders.walrus_port", out.folders_walrus_port, 1, 65535);
  reader->boolean("folders.mount", out.folders_mount);
  reader->text("folders.user", out.folders_user, 1, 32);
  if (out.folders_mount) {
    reader->require("folders.walrus_host");
    reader->require("folders.key_file");
    reader->require("folders.known_hosts_file");
  }
  reader->path("folders.key_file", out.folders_key_file);
  reader->path("folders.known_hosts_file", out.folders_known_hosts_file);
  reader->integer("folders.port", out.folders_port, 1, 65535);
  read_uplink(*reader, out.uplink);
  if (auto ok = reader->finish(); !ok) return fail(ok.error());
  if (auto url = http::Url::parse(out.walrus_url); !url)
    return fail(url.error(), path.string() + ": walrus_url");
  return out;
}

}  // namespace educloud::cc

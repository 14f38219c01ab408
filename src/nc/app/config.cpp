#include "nc/app/config.hpp"

#include "common/http/client.hpp"

namespace educloud::nc {

Result<Config> load_config(const std::filesystem::path& file) {
  auto reader = config::Reader::open(file);
  if (!reader) return fail(reader.error());
  Config out;
  out.common.port = 8003;
  out.common.state_dir = "/var/lib/educloud/nc";
  config::read_common(*reader, out.common);
  reader->require("cc_url");
  reader->text("cc_url", out.cc_url, 1, 255);
  reader->text("cc_ca_file", out.cc_ca_file);
  reader->require("node_key_file");
  reader->path("node_key_file", out.node_key_file);
  reader->choice("hypervisor", out.hypervisor, "libvirt|fake");
  reader->text("libvirt_uri", out.libvirt_uri, 1, 255);
  reader->choice("accel", out.accel, "auto|kvm|tcg");
  reader->boolean("guest_egress", out.guest_egress);
  reader->integer("stop_grace_s", out.stop_grace_s, 0, 3600);
  reader->integer("max_memory_mib", out.max_memory_mib, 0, 4'000'000);
  reader->integer("max_cpus", out.max_cpus, 0, 256);
  reader->integer("vm.data_disk_gib", out.data_disk_gib, 0, 16'384);
  reader->integer("reserve_mib", out.reserve_mib, 0, 1'000'000);
  reader->integer("min_free_disk_mib", out.min_free_disk_mib, 0, 10'000'000);
  reader->integer("connections", out.connections, 1, 16);
  reader->integer("max_transfers", out.max_transfers, 1, 16);
  reader->integer("frame_cache_mib", out.frame_cache_mib, 0, 65'536);
  reader->boolean("peers.enabled", out.peers);
  reader->text("qemu_group", out.qemu_group, 0, 32);
  reader->integer("console_limit_kib", out.console_limit_kib, 64, 1'048'576);
  reader->path("folders.local", out.folders_local);
  reader->text("folders.host", out.folders.host, 0, 255);
  reader->integer("folders.port", out.folders.port, 1, 65535);
  reader->text("folders.user", out.folders.user, 1, 32);
  if (!out.folders.host.empty()) {
    reader->require("folders.key_file");
    reader->require("folders.known_hosts_file");
  }
  reader->path("folders.key_file", out.folders.key_file);
  reader->path("folders.known_hosts_file", out.folders.known_hosts_file);
  if (auto ok = reader->finish(); !ok) return fail(ok.error());
  if (auto url = http::Url::parse(out.cc_url); !url) {
    return fail(ErrorCode::invalid_argument, file.string() + ": cc_url: " + url.error().message, "cc_url");
  }
  return out;
}

}  // namespace educloud::nc

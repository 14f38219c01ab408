#include "clc/app/config.hpp"

#include <charconv>

#include "common/http/client.hpp"

namespace educloud::clc {

Result<std::pair<int, int>> parse_port_range(const std::string& text, const std::string& key) {
  const auto refuse = [&] {
    return fail(ErrorCode::invalid_argument,
                key + " = \"" + text.substr(0, 40) +
                    "\" must be two ports between 1024 and "
                    "65535, the first not above the second, such as \"5900-5999\"",
                key);
  };
  const auto dash = text.find('-');
  if (dash == std::string::npos) return refuse();
  int first = 0, last = 0;
  const auto number = [](const char* from, const char* to, int& out) {
    const auto [at, error] = std::from_chars(from, to, out);
    return error == std::errc() && at == to && from != to;
  };
  const char* begin = text.data();
  if (!number(begin, begin + dash, first) || !number(begin + dash + 1, begin + text.size(), last))
    return refuse();
  if (first < 1024 || last > 65535 || first > last) return refuse();
  return std::pair(first, last);
}

std::filesystem::path database_file(const std::filesystem::path& state_dir) {
  return state_dir / "clc.sqlite";
}

Result<Config> load_config(const std::filesystem::path& path) {
  auto reader = config::Reader::open(path);
  if (!reader) return fail(reader.error());
  Config out;
  out.common.state_dir = "/var/lib/educloud/clc";
  out.common.port = 8000;
  out.common.broker.user = "clc";
  std::string display_ports = "5900-5999", web_ports = "20000-20999";
  std::string policy = "image_first";
  int reserve_mib = 2048, min_disk_gib = 10, boot_slot_s = 30;
  int backup_every_min = 15, backup_keep = 16, backup_days = 7;
  config::read_common(*reader, out.common);
  reader->require("walrus_url");
  reader->text("walrus_url", out.walrus_url, 8, 300);
  reader->require("data_key_file");
  reader->path("data_key_file", out.data_key_file);
  reader->integer("session_hours", out.session_hours, 1, 24 * 30);
  reader->integer("drain_warning_s", out.drain_warning_s, 0, 24 * 3600);
  reader->integer("drain_idle_min", out.drain_idle_min, 0, 7 * 24 * 60);
  reader->integer("limits.max_snapshots", out.max_snapshots, 0, 100);
  reader->number("placement.max_cpu_usage", out.placement.max_cpu_usage, 1, 100);
  reader->number("placement.cpu_overcommit", out.placement.cpu_overcommit, 0.1, 64);
  reader->integer("placement.reserve_mib", reserve_mib, 0, 1'000'000);
  reader->integer("placement.min_disk_gib", min_disk_gib, 0, 100'000);
  reader->text("placement.policy", policy, 4, 20);
  reader->integer("placement.max_parallel_boots", out.gate.max_parallel, 1, 1000);
  reader->integer("placement.boot_slot_s", boot_slot_s, 1, 600);
  reader->integer("backup.every_min", backup_every_min, 0, 7 * 24 * 60);
  reader->integer("backup.keep", backup_keep, 1, 1000);
  reader->integer("backup.keep_days", backup_days, 0, 1000);
  reader->text("placement.display_ports", display_ports, 3, 11);
  reader->text("placement.web_ports", web_ports, 3, 11);
  if (auto ok = reader->finish(); !ok) return fail(ok.error());
  out.placement.reserve_mib = reserve_mib;
  out.placement.min_disk_mib = std::int64_t{min_disk_gib} * 1024;
  out.gate.slot_ms = std::int64_t{boot_slot_s} * 1000;
  const auto chosen = parse_policy(policy);
  if (!chosen) return fail(chosen.error(), path.string());
  out.placement.policy = *chosen;
  out.backup.database = database_file(out.common.state_dir);
  out.backup.every = std::chrono::minutes{backup_every_min};
  out.backup.keep = static_cast<std::size_t>(backup_keep);
  out.backup.keep_days = static_cast<std::size_t>(backup_days);
  auto display = parse_port_range(display_ports, "placement.display_ports");
  if (!display) return fail(display.error(), path.string());
  auto web = parse_port_range(web_ports, "placement.web_ports");
  if (!web) return fail(web.error(), path.string());
  std::tie(out.display_port_first, out.display_port_last) = *display;
  std::tie(out.web_port_first, out.web_port_last) = *web;
  out.placement.max_seats =
      std::min(display->second - display->first, web->second - web->first) + 1;  // a VM takes one of each
  if (auto url = http::Url::parse(out.walrus_url); !url)
    return fail(url.error(), path.string() + ": walrus_url");
  while (out.walrus_url.ends_with('/')) out.walrus_url.pop_back();
  return out;
}

}  // namespace educloud::clc

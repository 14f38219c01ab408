// educloud walrus: looks into the store of walrus on its own host, without the cloud.

#include "cli/core/text.hpp"
#include "common/base/bytes.hpp"
#include "common/config/config.hpp"
#include "walrus/store/export.hpp"
#include "walrus/store/fsck.hpp"
#include "walrus/store/sweep.hpp"

#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/progress.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kShownDamages = 1000;

struct StoreArguments {
  std::filesystem::path config = "/etc/educloud/walrus.conf", prefix;
};

/// Where the store is: --prefix, else what the daemon's own config says.
Result<std::filesystem::path> prefix_of(const StoreArguments& a) {
  if (!a.prefix.empty()) return std::filesystem::absolute(a.prefix);
  auto reader = config::Reader::open(a.config);
  if (!reader) return fail(reader.error());
  // The daemon checks the rest of its file.
  std::filesystem::path prefix = "/storage";
  reader->path("prefix", prefix);
  return prefix;
}

void add_store_options(CLI::App& command, StoreArguments& a) {
  command.add_option("--config", a.config, "Config of walrus")->capture_default_str();
  command.add_option("--prefix", a.prefix, "Its prefix, instead of the config's");
}

std::string size_text(std::uint64_t bytes) {
  return to_string(Bytes{bytes});
}

nlohmann::json to_json(const walrus::FsckReport& report) {
  auto damages = nlohmann::json::array();
  for (const auto& one : report.damages) {
    damages.push_back({{"kind", to_string(one.kind)},
                       {"id", one.id},
                       {"pack", one.pack},
                       {"offset", one.offset},
                       {"what", one.what},
                       {"versions", one.versions}});
  }
  return {{"versions", report.versions},         {"frames", report.frames},
          {"damage_count", report.damage_count}, {"damages", std::move(damages)},
          {"older_format", report.older_format}, {"clean", report.is_clean()}};
}

std::string to_text(const walrus::FsckReport& report) {
  std::string out;
  for (std::size_t i = 0; i < std::min(report.damages.size(), kShownDamages); ++i) {
    const auto& one = report.damages[i];
    out += std::string(to_string(one.kind)) + " " + one.id;
    if (!one.pack.empty()) out += " in " + one.pack + " at " + std::to_string(one.offset);
    out += ": " + one.what;
    std::string users;
    for (const auto& version : one.versions) users += (users.empty() ? "" : ", ") + version;
    out += "; " + (users.empty() ? std::string("no version needs it") : "needed by " + users) + "\n";
  }
  if (report.damage_count > std::min(report.damages.size(), kShownDamages))
    out += "and more: " + std::to_string(report.damage_count) + " in all\n";
  for (const auto& one : report.older_format) out += one + " is of an older format: not looked into\n";
  return out + std::to_string(report.versions) + " versions, " + std::to_string(report.frames) +
         " chunks read: " +
         (report.is_clean() ? "all is as it was stored"
                            : std::to_string(report.damage_count) +
                                  " damaged; bring the versions named from a backup, or import them again");
}

Result<> check_store(Context& context, const StoreArguments& a) {
  auto prefix = prefix_of(a);
  if (!prefix) return fail(prefix.error());
  const SystemClock clock;
  ProgressPrinter progress(!context.console.quiet, context.console.stderr_is_terminal(), clock);
  walrus::FsckOptions options;
  options.prefix = *prefix;
  options.on_bytes = [&](std::uint64_t done, std::uint64_t total) {
    progress.show(Step{.label = "checking " + prefix->string(), .bytes_done = done, .bytes_total = total});
  };
  auto report = walrus::fsck(options);
  progress.finish();
  if (!report) return fail(report.error());
  context.console.result(to_json(*report), to_text(*report));
  if (!report->is_clean()) context.exit_code = ExitCode::task_failed;
  return {};
}

struct SaveArguments {
  std::string imgid, format = "raw";
  std::filesystem::path output;
  int version = 0;
};

Result<> save_version(Context& context, const StoreArguments& a, const SaveArguments& what) {
  auto prefix = prefix_of(a);
  if (!prefix) return fail(prefix.error());
  auto format = image::parse_format(what.format);
  if (!format) return fail(format.error());
  const SystemClock clock;
  ProgressPrinter progress(!context.console.quiet, context.console.stderr_is_terminal(), clock);
  walrus::ExportRequest request;
  request.prefix = *prefix;
  request.imgid = what.imgid;
  request.version = what.version;
  request.output = std::filesystem::absolute(what.output);
  request.format = *format;
  request.on_bytes = [&](std::uint64_t done, std::uint64_t total) {
    progress.show(Step{.label = "exporting " + what.imgid, .bytes_done = done, .bytes_total = total});
  };
  auto report = walrus::export_version(request);
  progress.finish();
  if (!report) return fail(report.error());
  const nlohmann::json document = {{"imgid", what.imgid},
                                   {"version", report->version},
                                   {"file", request.output.string()},
                                   {"format", what.format},
                                   {"digest", report->digest},
                                   {"virtual_size_bytes", report->disk_bytes},
                                   {"size_bytes", report->data_bytes}};
  context.console.result(document, "wrote " + request.output.string() + ": " + what.imgid + " version " +
                                       std::to_string(report->version) + ", disk " +
                                       size_text(report->disk_bytes) + ", data " +
                                       size_text(report->data_bytes) + ", every chunk checked");
  return {};
}

Result<> collect_garbage(Context& context, const StoreArguments& a, int grace_s) {
  auto prefix = prefix_of(a);
  if (!prefix) return fail(prefix.error());
  auto report = walrus::sweep_offline(*prefix, std::chrono::seconds{grace_s});
  if (!report) return fail(report.error());
  const nlohmann::json document = {{"live", report->live},
                                   {"newly_dead", report->newly_dead},
                                   {"removed", report->removed},
                                   {"freed_bytes", report->freed_bytes}};
  context.console.result(
      document, std::to_string(report->removed) + " chunks removed, " + size_text(report->freed_bytes) +
                    " freed; " + std::to_string(report->live) + " are needed, " +
                    std::to_string(report->newly_dead) + " no longer: they go after the grace period");
  return {};
}

Result<> show_stats(Context& context, const StoreArguments& a, const std::string& imgid) {
  auto prefix = prefix_of(a);
  if (!prefix) return fail(prefix.error());
  auto figures = walrus::store_figures(*prefix, imgid);
  if (!figures) return fail(figures.error());
  auto versions = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows = {{"IMAGE", "VERSION", "DISK", "DATA", "STORED"}};
  for (const auto& one : figures->versions) {
    versions.push_back({{"imgid", one.imgid},
                        {"version", one.version},
                        {"virtual_size_bytes", one.disk_bytes},
                        {"size_bytes", one.data_bytes},
                        {"stored_bytes", one.stored_bytes}});
    rows.push_back({one.imgid, std::to_string(one.version), size_text(one.disk_bytes),
                    size_text(one.data_bytes), size_text(one.stored_bytes)});
  }
  const nlohmann::json document = {{"versions", std::move(versions)},
                                   {"size_bytes", figures->data_bytes},
                                   {"unique_bytes", figures->unique_bytes},
                                   {"stored_bytes", figures->stored_bytes},
                                   {"disk_bytes", figures->disk_bytes}};
  context.console.result(document, render_table(rows) + "as files " + size_text(figures->data_bytes) +
                                       "; each chunk once " + size_text(figures->unique_bytes) +
                                       "; compressed " + size_text(figures->stored_bytes) + "; on disk " +
                                       size_text(figures->disk_bytes));
  return {};
}

}  // namespace

void add_walrus_commands(CLI::App& app, Context& context) {
  auto* walrus = app.add_subcommand("walrus", "The store of walrus, on its own host, without the cloud");
  walrus->require_subcommand(1);
  auto store = std::make_shared<StoreArguments>();
  auto* fsck = walrus->add_subcommand("fsck", "Read every chunk and version and name what is damaged");
  add_store_options(*fsck, *store);
  on_command(*fsck, context, [=, &context] { return check_store(context, *store); });

  auto what = std::make_shared<SaveArguments>();
  auto* save = walrus->add_subcommand("export", "Save a version as a disk file");
  save->add_option("IMAGE", what->imgid, "Image id")->required();
  save->add_option("--version", what->version, "This version, not the one in use")
      ->check(CLI::PositiveNumber);
  save->add_option("-o,--output", what->output, "File to make")->required();
  save->add_option("--format", what->format, "raw (sparse) or qcow2")
      ->check(CLI::IsMember({"raw", "qcow2"}))
      ->capture_default_str();
  add_store_options(*save, *store);
  on_command(*save, context, [=, &context] { return save_version(context, *store, *what); });

  auto grace_s = std::make_shared<int>(3600);
  auto* gc = walrus->add_subcommand(
      "gc", "Remove chunks that nothing needs, while walrus does not run (it does so by itself)");
  gc->add_option("--grace", *grace_s, "Seconds that a chunk stays after nothing needs it any more")
      ->check(CLI::Range(0, 30 * 24 * 3600))
      ->capture_default_str();
  add_store_options(*gc, *store);
  on_command(*gc, context, [=, &context] { return collect_garbage(context, *store, *grace_s); });

  auto imgid = std::make_shared<std::string>();
  auto* stats = walrus->add_subcommand("stats", "What versions hold and what the store takes for them");
  stats->add_option("IMAGE", *imgid, "Image id; all images if not given");
  add_store_options(*stats, *store);
  on_command(*stats, context, [=, &context] { return show_stats(context, *store, *imgid); });
}

}  // namespace educloud::cli

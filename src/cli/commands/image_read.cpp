// image export, url, diff and compact: what reads versions from walrus.

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/progress.hpp"
#include "cli/core/text.hpp"
#include "cli/image/disk_diff.hpp"
#include "cli/image/download.hpp"
#include "common/base/bytes.hpp"
#include "common/sys/file.hpp"
#include "common/sys/process.hpp"

namespace educloud::cli {
namespace {

constexpr std::chrono::hours kConvertTime{24};

std::string size_text(std::uint64_t bytes) {
  return to_string(Bytes{bytes});
}

std::string image_path(const std::string& imgid) {
  return "/images/" + http::url_encode(imgid);
}

/// `version` 0: the one in use. `valid_s` 0: as long as the cloud thinks right.
Result<nlohmann::json> sign_url(Session& session, const std::string& imgid, int version, int valid_s) {
  if (version == 0) {
    auto image = session.get(image_path(imgid));
    if (!image) return image;
    version = image->value("version", 0);
    if (version < 1) return fail(ErrorCode::conflict, "image " + imgid + " has no version yet");
  }
  auto body = nlohmann::json::object();
  if (valid_s > 0) body["valid_s"] = valid_s;
  return session.post(image_path(imgid) + "/versions/" + std::to_string(version) + "/url", body);
}

Result<SignedVersion> open_version(Context& context, Session& session, const std::string& imgid,
                                   int version) {
  auto answer = sign_url(session, imgid, version, 0);
  if (!answer) return fail(answer.error());
  auto signed_version = parse_signed_version(*answer);
  if (signed_version) signed_version->remote.client.tls_ca_file = context.session.ca_file;
  return signed_version;
}

struct ExportArguments {
  std::string imgid, format = "raw";
  std::filesystem::path output;
  int version = 0;
};

Result<> rename_to(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code error;
  std::filesystem::rename(from, to, error);
  if (error) return fail(errno_error("rename " + from.string(), error.value()));
  return sys::sync_path(to.parent_path());
}

Result<> convert(const std::filesystem::path& raw, const std::filesystem::path& output) {
  const auto made = output.string() + ".qcow2.part";
  sys::ProcessOptions options;
  options.argv = {"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.string(), made};
  options.timeout = kConvertTime;
  auto done = sys::run_checked(options);
  if (!done && done.error().code == ErrorCode::not_found) {
    return fail(ErrorCode::not_found,
                "qemu-img is not installed (package qemu-utils); the raw disk is in " + raw.string());
  }
  if (!done) return fail(done.error());
  if (auto ok = sys::sync_path(made); !ok) return ok;
  if (auto ok = rename_to(made, output); !ok) return ok;
  std::error_code ignored;
  std::filesystem::remove(raw, ignored);
  return {};
}

Result<> export_image(Context& context, Session& session, const ExportArguments& a) {
  std::error_code ignored;
  const auto output = std::filesystem::absolute(a.output);
  if (std::filesystem::exists(output, ignored)) {
    return fail(ErrorCode::conflict, output.string() + " is there already: choose another name", "output");
  }
  auto version = open_version(context, session, a.imgid, a.version);
  if (!version) return fail(version.error());
  DownloadRequest request;
  request.version = *version;
  request.file = output.string() + ".part";
  const std::string name = a.imgid + " version " + std::to_string(version->remote.version);
  const SystemClock clock;
  ProgressPrinter progress(!context.console.quiet, context.console.stderr_is_terminal(), clock);
  auto report = download_disk(request, [&](std::uint64_t done, std::uint64_t total) {
    progress.show(Step{.label = "exporting " + name, .bytes_done = done, .bytes_total = total});
  });
  progress.finish();
  if (!report) {
    auto error = report.error();
    if (is_retryable(error.code)) error.message += "; the same command continues";
    return fail(std::move(error));
  }
  if (a.format == "qcow2") {
    progress.show(Step{.label = "writing " + output.string()});
    if (auto ok = convert(request.file, output); !ok) return ok;
  } else if (auto ok = rename_to(request.file, output); !ok) {
    return ok;
  }
  progress.finish();
  const nlohmann::json document = {{"imgid", a.imgid},
                                   {"version", version->remote.version},
                                   {"file", output.string()},
                                   {"format", a.format},
                                   {"digest", version->digest.hex()},
                                   {"virtual_size_bytes", report->disk_bytes},
                                   {"size_bytes", report->data_bytes},
                                   {"kept_bytes", report->kept_bytes},
                                   {"fetched_bytes", report->fetched_bytes}};
  context.console.result(document, "wrote " + output.string() + ": " + name + ", disk " +
                                       size_text(report->disk_bytes) + ", data " +
                                       size_text(report->data_bytes) + ", every chunk checked");
  return {};
}

Result<> print_url(Context& context, Session& session, const std::string& imgid, int version, int hours) {
  auto answer = sign_url(session, imgid, version, hours * 3600);
  if (!answer) return fail(answer.error());
  auto signed_version = parse_signed_version(*answer);
  if (!signed_version) return fail(signed_version.error());
  (*answer)["signed_url"] = signed_version->url;
  (*answer)["signed_manifest_url"] = signed_version->manifest_url;
  context.console.note("valid until " + format_time(answer->value("expires", std::int64_t{0})) +
                       "; whoever has it may read the disk: curl -fo disk.raw URL");
  context.console.result(*answer, signed_version->url);
  return {};
}

Result<chunk::DiskMap> read_map(Context& context, Session& session, const std::string& imgid, int version,
                                const chunk::DiskMap* have) {
  auto opened = open_version(context, session, imgid, version);
  if (!opened) return fail(opened.error());
  transfer::ChunkClient client(opened->remote);
  auto manifest = client.manifest(opened->digest, {});
  if (!manifest) return fail(manifest.error());
  std::vector<const chunk::DiskMap*> known;
  if (have != nullptr) known.push_back(have);
  return transfer::fetch_map(client, *manifest, known, {});
}

struct Comparison {
  nlohmann::json document;
  std::string text;
};

Result<Comparison> compare(Context& context, Session& session, const std::string& imgid, int from, int to) {
  auto a = read_map(context, session, imgid, from, nullptr);
  if (!a) return fail(a.error());
  auto b = read_map(context, session, imgid, to, &*a);
  if (!b) return fail(b.error());
  const DiskDiff diff = diff_disks(*a, *b);
  const auto disk = [](int version, const chunk::DiskMap& map) -> nlohmann::json {
    return {{"version", version}, {"virtual_size_bytes", map.disk_bytes()}, {"size_bytes", map.data_bytes()}};
  };
  Comparison out;
  out.document = {{"imgid", imgid},
                  {"from", disk(from, *a)},
                  {"to", disk(to, *b)},
                  {"same_bytes", diff.same_bytes},
                  {"changed_bytes", diff.changed_bytes},
                  {"added_bytes", diff.added_bytes},
                  {"removed_bytes", diff.removed_bytes}};
  const std::string va = "version " + std::to_string(from), vb = "version " + std::to_string(to);
  std::vector<std::vector<std::string>> rows = {{"", va, vb}};
  rows.push_back({"disk", size_text(a->disk_bytes()), size_text(b->disk_bytes())});
  rows.push_back({"data", size_text(a->data_bytes()), size_text(b->data_bytes())});
  out.text = render_table(rows) + "same " + size_text(diff.same_bytes) + ", changed " +
             size_text(diff.changed_bytes) + ", added " + size_text(diff.added_bytes) + ", removed " +
             size_text(diff.removed_bytes) + " (counted by chunks of 64 KiB)";
  return out;
}

/// The versions of the database disk that go with these two of a server's image; nothing if one has none.
Result<std::optional<std::pair<int, int>>> database_versions(Session& session, const std::string& imgid,
                                                             int from, int to) {
  auto versions = session.list(image_path(imgid) + "/versions");
  if (!versions) return fail(versions.error());
  std::pair<int, int> found{0, 0};
  for (const auto& one : *versions) {
    if (!one.is_object()) continue;
    const int version = one.value("version", 0), database = one.value("database_version", 0);
    if (version == from) found.first = database;
    if (version == to) found.second = database;
  }
  if (found.first == 0 || found.second == 0) return std::nullopt;
  return found;
}

Result<> diff_versions(Context& context, Session& session, const std::string& imgid, int from, int to) {
  auto system = compare(context, session, imgid, from, to);
  if (!system) return fail(system.error());
  auto paired = database_versions(session, imgid, from, to);
  if (!paired) return fail(paired.error());
  system->document["database"] = nullptr;
  if (*paired) {
    auto image = session.get(image_path(imgid));
    if (!image) return fail(image.error());
    const auto [first, second] = **paired;
    auto database = compare(context, session, cell(*image, "database_imgid"), first, second);
    if (!database) return fail(database.error());
    system->document["database"] = database->document;
    system->text += "\n\nits database disk\n" + database->text;
  }
  context.console.result(system->document, system->text);
  return {};
}

/// Nothing to do, and why: other clouds' images had to be recompressed now and then.
Result<> explain_compact(Context& context, Session& session, const std::string& imgid) {
  auto versions = session.list(image_path(imgid) + "/versions");
  if (!versions) return fail(versions.error());
  std::uint64_t logical = 0;
  for (const auto& one : *versions) logical += one.value("size_bytes", std::uint64_t{0});
  const nlohmann::json document = {
      {"imgid", imgid}, {"versions", versions->size()}, {"size_bytes", logical}, {"needed", false}};
  context.console.result(
      document,
      imgid + ": " + std::to_string(versions->size()) + " versions with " + size_text(logical) +
          " of data together. There is nothing to compact: walrus keeps every 64 KiB chunk once over "
          "all versions and images, compressed with zstd, and no holes.\n"
          "What that takes on disk: educloud walrus stats " +
          imgid + " (on walrus' host)");
  return {};
}

}  // namespace

void add_image_read_commands(CLI::App& image, Context& context) {
  auto* save = image.add_subcommand("export", "Save a version as a disk file; a cut download continues");
  auto arguments = std::make_shared<ExportArguments>();
  auto& a = *arguments;
  save->add_option("IMAGE", a.imgid, "Image id")->required();
  save->add_option("--version", a.version, "This version, not the one in use")->check(CLI::PositiveNumber);
  save->add_option("-o,--output", a.output, "File to make")->required();
  save->add_option("--format", a.format, "raw (sparse) or qcow2")
      ->check(CLI::IsMember({"raw", "qcow2"}))
      ->capture_default_str();
  on_command(*save, context,
             [&context, arguments](Session& session) { return export_image(context, session, *arguments); });

  auto imgid = std::make_shared<std::string>();
  auto version = std::make_shared<int>(0), hours = std::make_shared<int>(6);
  auto* url = image.add_subcommand("url", "A signed URL of a version's disk, for curl");
  url->add_option("IMAGE", *imgid, "Image id")->required();
  url->add_option("--version", *version, "This version, not the one in use")->check(CLI::PositiveNumber);
  url->add_option("--hours", *hours, "How long it is good for")
      ->check(CLI::Range(1, 168))
      ->capture_default_str();
  on_command(*url, context, [=, &context](Session& session) {
    return print_url(context, session, *imgid, *version, *hours);
  });

  auto from = std::make_shared<int>(0), to = std::make_shared<int>(0);
  auto* diff = image.add_subcommand("diff", "How much two versions of an image differ");
  diff->add_option("IMAGE", *imgid, "Image id")->required();
  diff->add_option("FROM", *from, "Version")->required()->check(CLI::PositiveNumber);
  diff->add_option("TO", *to, "Version")->required()->check(CLI::PositiveNumber);
  on_command(*diff, context,
             [=, &context](Session& session) { return diff_versions(context, session, *imgid, *from, *to); });

  auto* compact = image.add_subcommand("compact", "Why an image need not be compacted, and what it takes");
  compact->add_option("IMAGE", *imgid, "Image id")->required();
  on_command(*compact, context,
             [=, &context](Session& session) { return explain_compact(context, session, *imgid); });
}

}  // namespace educloud::cli

#include "cli/init/init.hpp"

#include <set>

#include "cli/init/confs.hpp"
#include "cli/init/database.hpp"
#include "cli/init/definitions.hpp"
#include "cli/init/owner.hpp"
#include "cli/init/secrets.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

/// The definitions of a thousand nodes have two MiB or so.
constexpr std::size_t kMaxFileBytes = 64 << 20;

/// A database is up to four files with SQLite's and the one that locks it; those that are there are given
/// away.
Result<> give_database(const fs::path& database, const std::optional<Owner>& owner) {
  for (const auto* suffix : {"", ".lock", "-wal", "-shm"}) {
    auto ok = give_file(database.string() + suffix, owner);
    if (!ok && ok.error().code != ErrorCode::not_found) return ok;
  }
  return {};
}

Result<> give_bundle_secret(const PlannedFile& file, const std::optional<Owner>& owner) {
  if (auto ok = guard_directory(file.path.parent_path(), owner); !ok) return ok;
  return give_file(file.path, owner);
}

Result<> write_one(const PlannedFile& file, bool replace, InitReport& report) {
  auto present = sys::read_file(file.path, kMaxFileBytes);
  if (present && *present == file.content) return {};
  if (present && file.keep && !replace) {
    report.kept.push_back(file.path);
    return {};
  }
  const unsigned directory_mode = file.mode == 0600 ? 0700 : 0755;
  if (auto ok = sys::make_directories(file.path.parent_path(), directory_mode); !ok) return ok;
  if (auto ok = sys::write_file_atomically(file.path, file.content, file.mode); !ok) return ok;
  report.written.push_back(file.path);
  return {};
}

/// What an earlier run chose; nothing if there was none.
Result<std::optional<std::string>> known_cloud_cluster(const fs::path& definitions) {
  auto text = sys::read_file(definitions, kMaxFileBytes);
  if (!text && text.error().code == ErrorCode::not_found) return std::optional<std::string>();
  if (!text) return fail(text.error());
  auto known = cluster_of_cloud_vhost(*text);
  if (!known) return fail(known.error(), definitions.string());
  return std::optional(std::move(*known));
}

}  // namespace

Result<InitReport> run_init(InitArguments arguments, const AskPassword& ask_password) {
  const fs::path definitions_file = arguments.config_dir / "definitions.json";
  auto cloud_cluster = known_cloud_cluster(definitions_file);
  if (!cloud_cluster) return fail(cloud_cluster.error());
  arguments.cloud_cluster = std::move(*cloud_cluster);
  auto plan = make_plan(std::move(arguments));
  if (!plan) return fail(plan.error());
  auto owner = find_owner(plan->arguments);
  if (!owner) return fail(owner.error());
  if (*owner) plan->arguments.owner = (*owner)->name;
  if (plan->arguments.files_user.empty()) plan->arguments.files_user = find_files_user(*owner);
  const fs::path& config_dir = plan->arguments.config_dir;
  if (auto ok = sys::make_directories(config_dir); !ok) return fail(ok.error());
  auto secrets = load_or_make_secrets(config_dir / "secrets", *plan, *owner);
  if (!secrets) return fail(secrets.error());

  InitReport report;
  report.definitions = definitions_file;
  const std::string definitions = render_definitions(*plan, secrets->passwords).dump(2) + "\n";
  if (auto ok = write_one({report.definitions, definitions, 0600}, true, report); !ok)
    return fail(ok.error());
  const bool changed_hosts = !report.written.empty();
  if (plan->arguments.definitions_only) return report;

  std::set<fs::path> bundles;
  auto files = plan_files(*plan, *secrets);
  auto sftp = plan_sftp_files(*plan, *secrets);
  if (!sftp) return fail(sftp.error());
  files.insert(files.end(), sftp->begin(), sftp->end());
  for (const auto& file : files) {
    if (auto ok = write_one(file, plan->arguments.replace_config, report); !ok) return fail(ok.error());
    if (file.mode != 0600) continue;
    if (auto ok = give_bundle_secret(file, *owner); !ok) return fail(ok.error());
  }
  for (const auto* hosts : {&plan->clusters, &plan->nodes}) {
    for (const auto& host : *hosts) {
      if (!host.on_this_machine) bundles.insert(plan->arguments.out / host.name);
    }
  }
  report.bundles.assign(bundles.begin(), bundles.end());
  const fs::path state_dir = clc_state_dir(*plan);
  if (auto ok = sys::make_directories(state_dir, 0700); !ok) return fail(ok.error());
  if (auto ok = give_directory(state_dir, *owner); !ok) return fail(ok.error());
  report.database = state_dir / "clc.sqlite";
  auto outcome = fill_database(report.database, *plan, ask_password);
  // After a failure too: clc must be able to open what was made.
  if (auto ok = give_database(report.database, *owner); !ok) return fail(ok.error());
  if (!outcome && outcome.error().code == ErrorCode::conflict && !changed_hosts &&
      !plan->arguments.reset_admin_password) {
    report.database_in_use = true;
    return report;
  }
  if (!outcome) return fail(outcome.error());
  report.admin_created = outcome->created;
  report.admin_password_set = outcome->password_set;
  return report;
}

}  // namespace educloud::cli

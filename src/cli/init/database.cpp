#include "cli/init/database.hpp"

#include "clc/app/setup.hpp"
#include "clc/store/store.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

Result<bool> has_account(clc::store::Store& store, const std::string& name) {
  return store.read([&](clc::store::Sql& sql) -> Result<bool> {
    return sql.number("SELECT count(*) FROM accounts WHERE name = ?", {name}) > 0;
  });
}

Result<AdminOutcome> ensure_admin(clc::store::Store& store, const InitArguments& arguments,
                                  const AskPassword& ask_password) {
  auto is_known = has_account(store, arguments.admin);
  if (!is_known) return fail(is_known.error());
  const auto& file = arguments.admin_password_file;
  if (*is_known && !arguments.reset_admin_password) return AdminOutcome{};
  auto password = file.empty() ? ask_password() : sys::read_secret_file(file);
  if (!password) return fail(password.error());
  if (*is_known) {
    if (auto ok = clc::set_password(store, arguments.admin, *password); !ok) return fail(ok.error());
    return AdminOutcome{.created = false, .password_set = true};
  }
  const SystemClock clock;
  auto made = clc::create_account(store, clock, arguments.admin, *password, true);
  if (!made) return fail(made.error());
  return AdminOutcome{.created = true, .password_set = true};
}

}  // namespace

Result<AdminOutcome> fill_database(const std::filesystem::path& database, const InitPlan& plan,
                                   const AskPassword& ask_password) {
  auto store = clc::store::Store::open(database);
  if (!store) return fail(store.error());
  for (const auto& cluster : plan.clusters) {
    if (auto ok = clc::register_cluster(**store, cluster.name); !ok) return fail(ok.error());
  }
  for (const auto& node : plan.nodes) {
    if (auto ok = clc::register_node(**store, node.name, node.cluster); !ok) return fail(ok.error());
  }
  auto outcome = ensure_admin(**store, plan.arguments, ask_password);
  (*store)->close();
  return outcome;
}

}  // namespace educloud::cli
